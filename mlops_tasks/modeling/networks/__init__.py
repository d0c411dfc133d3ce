"""Neural networks that score a window of days, each from its paper.

A network is a `torch.nn.Module` made as `Class(features=F, window=L, **architecture)`; it takes float32 windows without
NaN, shape (batch, L, F), the newest day last (`MLP` also (batch, F)), and returns scores, shape (batch,). In eval mode
a row's score depends on that row only. Gradients of a batch may be added up over parts of it: about 128 windows at a
time stay in a CPU's cache.
"""
