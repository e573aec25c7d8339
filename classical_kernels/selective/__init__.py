"""The selective scan of state-space models: discretised, run and read out in one pass, its states never in memory."""
