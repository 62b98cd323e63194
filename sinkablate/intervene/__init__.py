"""The command `intervene`: edit one head at a time and measure the effect, to test whether labels hold."""
