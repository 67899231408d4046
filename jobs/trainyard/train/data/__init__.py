"""Stage 2: the data, from any source to encoded data sets with the labels found in them.

A source is read (`reading`, `tables`, `images`), its columns are chosen (`plan/columns`) and checked (`checks`), its
labels decided (`labels`), and its rows encoded (`encoding`) and measured against the model (`lengths`).
"""

from trainyard.train.data.encoding import block_size, encode, tokens_per_sample
from trainyard.train.data.lengths import check_lengths
from trainyard.train.data.loading import RawData, load, load_for_model

__all__ = ["RawData", "block_size", "check_lengths", "encode", "load", "load_for_model", "tokens_per_sample"]
