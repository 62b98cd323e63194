"""The functions of the public Python API; `import sinkablate as sa` offers them lazily."""
