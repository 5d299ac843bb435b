"""What starts and confines the programs of users: trainers, evaluators and aggregators."""
