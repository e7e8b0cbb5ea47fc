"""Training of the face network with nnU-Net, from data set to export."""
