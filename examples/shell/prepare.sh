#!/bin/sh
# Write site1/, site2/, site3/ with data.csv: y = 3 a - 2 b + 1 c + 0.5, and a little noise.
# One sensor is dead at each site (its column is 0), so that no site alone can learn all three weights.
set -eu
for site in 1 2 3; do
    mkdir -p "site$site"
    awk -v dead="$site" 'BEGIN {
        srand(dead)
        print "a,b,c,y"
        for (row = 1; row <= 200; row++) {
            for (column = 1; column <= 3; column++) x[column] = column == dead ? 0 : 2 * rand() - 1
            y = 3 * x[1] - 2 * x[2] + x[3] + 0.5 + (rand() - 0.5) / 5
            printf "%.6f,%.6f,%.6f,%.6f\n", x[1], x[2], x[3], y
        }
    }' > "site$site/data.csv"
done
