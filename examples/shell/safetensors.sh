# Read and write safetensors files with awk, od, dd and printf. POSIX sh; source it.
#
# A safetensors file is: the header's length (8 bytes, little-endian), the header (JSON), the tensors' bytes.
# Here every tensor is a vector of float32, little-endian.

# write_tensors FILE NAME "NUMBER ..." [NAME "NUMBER ..."]...   The file appears whole or not at all.
write_tensors() {
    _file=$1
    shift
    _header= _numbers= _begin=0
    while [ $# -ge 2 ]; do
        _count=$(printf '%s\n' "$2" | wc -w)
        _end=$((_begin + 4 * _count))
        _header="$_header,\"$1\":{\"dtype\":\"F32\",\"shape\":[$((_count))],\"data_offsets\":[$_begin,$_end]}"
        _numbers="$_numbers $2"
        _begin=$_end
        shift 2
    done
    _header="{${_header#,}}"
    {
        printf "$(_octal length "${#_header}")"
        printf '%s' "$_header"
        printf "$(_octal float32 "$_numbers")"
    } > "$_file.part"
    mv "$_file.part" "$_file"
}

# read_tensor FILE NAME   Prints the numbers of one tensor, separated by blanks. Tensors may lie in any order.
read_tensor() {
    _length=$(od -An -v -tu1 -N8 "$1" | awk '{ for (i = 8; i > 0; i--) n = n * 256 + $i; print n }')
    _offsets=$(
        dd if="$1" bs=1 skip=8 count="$_length" 2> /dev/null | tr -d ' \n' |
            sed -n "s/.*\"$2\":{\([^}]*\)}.*/\1/p" |
            sed -n 's/.*"data_offsets":\[\([0-9]*\),\([0-9]*\)\].*/\1 \2/p'
    )
    if [ -z "$_offsets" ]; then
        echo "$1: there is no tensor $2" >&2
        return 1
    fi
    _begin=${_offsets% *} _end=${_offsets#* }
    # Not od -tf4: some print too few digits to give back the same float.
    od -An -v -tu1 -j $((8 + _length + _begin)) -N $((_end - _begin)) "$1" | awk '
        function value(b0, b1, b2, b3,   exponent, number) {
            exponent = b3 % 128 * 2 + int(b2 / 128)
            number = b2 % 128 * 65536 + b1 * 256 + b0
            if (exponent == 255) return "nan"
            if (exponent > 0) number += 8388608           # the leading 1, which is not stored
            else exponent = 1                             # subnormal: there is none
            for (; exponent > 150; exponent--) number = number * 2
            for (; exponent < 150; exponent++) number = number / 2
            return sprintf("%.9g", b3 < 128 ? number : -number)
        }
        { for (i = 1; i <= NF; i++) byte[count++] = $i }
        END { for (i = 0; i < count; i += 4) printf "%s ", value(byte[i], byte[i + 1], byte[i + 2], byte[i + 3]) }
    '
}

# _octal length N | _octal float32 "NUMBER ..."   Prints bytes as \ooo, which the shell's printf turns into bytes
# (awk itself cannot: some cannot print a zero byte, others write a byte over 127 as UTF-8).
_octal() {
    printf '%s\n' "$2" | tr -s ' ' '\n' | awk -v kind="$1" '
        # The low `count` bytes of a whole number, lowest first.
        function bytes(n, count,   text) {
            for (; count > 0; count--) {
                text = text sprintf("\\%03o", n % 256)
                n = int(n / 256)
            }
            return text
        }
        # The 32 bits of a float (IEEE 754: 1 sign, 8 exponent, 23 fraction) as a whole number. What is too large
        # for a float, or no number, becomes NaN, which the server refuses with a reason.
        function float32(v,   sign, exponent, fraction) {
            if (v !~ /^[-+]?\.?[0-9]/) return 2143289344   # nan, inf: awks differ on what they are worth
            if (v < 0) {
                sign = 2147483648
                v = -v
            }
            if (!(v <= 3.4028234e38)) return 2143289344
            for (exponent = 127; v >= 2; exponent++) v = v / 2
            for (; v < 1 && exponent > 1; exponent--) v = v * 2
            fraction = int(v * 8388608 + 0.5)             # the leading 1 included
            if (v < 1) return sign + fraction             # subnormal, or zero: there is no leading 1
            return sign + (exponent - 1) * 8388608 + fraction   # a leading 1, or a carry, adds 1 to the exponent
        }
        NF && kind == "length" { printf "%s", bytes($1, 8) }
        NF && kind == "float32" { printf "%s", bytes(float32($1), 4) }
    '
}
