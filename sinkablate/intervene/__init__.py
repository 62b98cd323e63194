"""The command `intervene`: edit one head at a time and measure the rest of the network, to test what labels claim."""
