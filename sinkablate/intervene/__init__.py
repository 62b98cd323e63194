"""The verb `intervene`: edits one head at a time and watches the rest of the network, to test what labels claim."""
