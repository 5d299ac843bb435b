"""The aggregators: RQ workers that inspect updates and aggregate rounds. A trainer never imports this."""
