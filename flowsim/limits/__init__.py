"""The limits of infinite width, which a network of width m is compared with.

`linear` is the linear regime (kernel gradient flow, closed form in time), `mean_field` the critical
one (the flow of the distribution of neurons, without sampling noise), `early` how neurons condense
from small weights. `convergence` measures how fast networks approach them.
"""
