r"""The entry of CoLLaVO: a command line in, one evaluation or training stage out.

    accelerate launch --config_file configs/accel/ddp_accel.yaml lbk_entry.py eval \
        --conf_files configs/collavo_step2.yaml --overrides DATASETS.TEST pope_test RESUME_FROM /path/to/CoLLaVO

Everything but a running evaluation or training answers without loading torch.
"""

from __future__ import annotations

import os
import sys

from pipeline.runtime.launcher_watch import watch_launcher

if __name__ == "__main__":
    watch_launcher(os.environ)  # before anything that takes time: it may be killed meanwhile

    from pipeline.commands.cli import main
    from pipeline.commands.registry import COMMANDS
    from trainer.cli import COMMANDS as TRAINING

    sys.exit(main(sys.argv[1:], (*COMMANDS, *TRAINING)))
