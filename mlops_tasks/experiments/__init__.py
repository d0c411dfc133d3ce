"""Which of two models is better, on the days that neither has learned from."""
