"""How a run stands, for people and programs that look at it."""
