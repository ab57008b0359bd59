"""What can answer a benchmark's questions: one module per kind of model (``MODEL.NAME``), behind one protocol.

``profile.py`` holds what belongs to a model rather than to a benchmark, read from ``configs/models/<family>.yaml``;
``options.py`` the ``MODEL`` section of the configuration. ``collavo.py``, ``hf.py`` and ``endpoint.py`` are the kinds;
each gives an `EngineSource` (``pipeline/base.py``). Importing any of them loads no torch.
"""
