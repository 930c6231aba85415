"""The method (paper, sections 3 to 5): ``compare`` is the page to read first. numpy, scipy and torch alone.

Words, each for one thing:

cluster      samples that one embedding holds together; one for each pair
members      the samples of a cluster, those with the largest entries of its eigenvector
size         number of members
pair         an eigenpair of the kernel difference whose eigenvalue exceeds rounding
direction    the pairs of one sign: what one embedding sees and the other misses
frequencies  number m of random Fourier frequencies, 2 m features; 0 is the exact kernel
floor        SPEC-diff that the random features alone give
rounding     the size up to which an eigenvalue is numerically zero
processes    those of torch.distributed that share the rows
device       where a tensor is: CPU, CUDA, MPS
path         where a file or folder is
split        a part of a data set: train, val, test
"""
