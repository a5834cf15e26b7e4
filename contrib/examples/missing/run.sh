echo this never runs
