"""Choice of the algorithm and search for its hyper-parameters."""
