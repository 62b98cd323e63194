"""Images: readers, order, transforms and the data module. Imports only `sinkablate.config` and `sinkablate.errors`."""
