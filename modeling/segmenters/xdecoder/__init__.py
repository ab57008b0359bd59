"""X-Decoder (arXiv 2212.11270) as a panoptic segmenter, in plain PyTorch.

``config`` sizes; ``focalnet``, ``pixel_decoder``, ``decoder``, ``text``, ``model`` the network; ``preprocess``,
``prompts``, ``classes``, ``postprocess`` what surrounds it; ``checkpoint`` files; ``segmenter`` joins them all.
"""
