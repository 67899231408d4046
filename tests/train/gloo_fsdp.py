"""The warm process for tests of FSDP2 without GPUs: accelerate would replace FSDP by DDP on CPUs."""

import sys

from trainyard.launch.warm import serve

if __name__ == "__main__":
    import os

    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    PartialState._prepare_backend = lambda self, *args, **kwargs: ("gloo", DistributedType.MULTI_GPU)
    serve(int(sys.argv[1]))
