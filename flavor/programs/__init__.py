"""What starts and confines the programs of users: trainers, evaluators and aggregators.

Every program is a `ChildProcess` (`process`), of a command line (`command`), within a `Confinement` and perhaps as
another `Account`. What a kind of program finds is in `KIND_environment`; of an aggregator also in `aggregator_files`,
`aggregator_folder` and `aggregator_paths`. Nothing here knows a bus, a store or a run.
"""
