"""Which parameters are trainable, and how a model lies on the processes: DDP, FSDP2, ZeRO."""
