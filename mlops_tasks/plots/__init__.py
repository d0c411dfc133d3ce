"""`*_info()` computes, `plot_*()` draws; reports and pages share both."""
