"""Neural networks that score a window of days, each as its paper describes it.

A network is a `torch.nn.Module` created as `Class(features=F, window=L, **architecture)`; it takes float32 windows
without NaN, shape (batch, L, F), the newest day last (`MLP` also (batch, F)), and returns scores, shape (batch,). In
eval mode a row's score depends on that row only. The gradient of a batch may be accumulated over parts of it: about 128
windows at a time fit into a CPU's cache.
"""
