"""Makes the network's data set, plans the network, trains it with nnU-Net and exports it (docs/develop/training.md)."""
