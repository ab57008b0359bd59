"""CoLLaVO: the crayon prompt, the model, its checkpoints and its generation engine."""

import logging

# told on import on some CPUs: a package that would speed up 4 bit there is absent; nothing here needs it
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
