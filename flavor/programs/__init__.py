"""Starts and confines the programs of users: trainers, evaluators and aggregators.

Every program is a `ChildProcess` (`process`), made from a command line (`command`), within a `Confinement` and perhaps
as another `Account`. The module `KIND_environment` makes the environment of a kind of program. The files of an
aggregator are in `aggregator_files`, `aggregator_folder` and `aggregator_paths`. Nothing here knows a bus, a store or a
run.
"""
