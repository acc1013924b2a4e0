"""PyTorch, TensorFlow or JAX in a partition: whichever is installed.

The variables that choose the GPU are set before the framework is imported, and the framework is
told to stay within the share, because this version of Chronos does not enforce it inside a process.
"""

import os

import chronos

with chronos.Partitioner().create(device=0, memory=0.25, duration=600) as partition:
    os.environ.update(partition.environment)
    fraction = partition.memory_fraction
    # JAX reads this when it is imported.
    os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"] = str(fraction)
    try:
        import torch

        if torch.cuda.is_available():
            torch.cuda.set_per_process_memory_fraction(fraction)
        print("torch", torch.__version__, "cuda" if torch.cuda.is_available() else "cpu")
    except ImportError:
        print("torch is not installed")
    try:
        import tensorflow as tf

        total = int(os.environ["CHRONOS_MEMORY_BYTES"].split(",")[0]) // 2**20
        for gpu in tf.config.list_physical_devices("GPU"):
            limit = tf.config.LogicalDeviceConfiguration(memory_limit=total)
            tf.config.set_logical_device_configuration(gpu, [limit])
        print("tensorflow", tf.__version__)
    except ImportError:
        print("tensorflow is not installed")
    try:
        import jax

        print("jax", jax.__version__, jax.devices())
    except ImportError:
        print("jax is not installed")
    print(f"{partition.time_remaining:.0f} s left on GPU {partition.device}")
