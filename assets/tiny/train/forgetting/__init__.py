"""What step 2 makes the tiny model forget: five rows of equal adapter size, and skills that step 2 never rehearses.

    python -m assets.tiny.train.forgetting outputs/forgetting --seeds 0 1 2
    python -m assets.tiny.train.forgetting --figures assets/tiny/forgetting.json

Source: CoLLaVO (arXiv 2402.11248), section 3.3: two adapters shall keep object-level instructions from overwriting what
visual ones teach. `assets.tiny.train.ablation` cannot show that: it rehearses every skill, and gives Dual QLoRA twice
the parameters of the one adapter. Here Image-CIT has the paper's three kinds of crayon instruction (lists of names and
boxes), the visual instructions leave `LEFT_OUT` out, the ranks of a row's adapters have the same sum in every row, and
all rows with visual instructions make as many updates on them. A run whose figures are there is not repeated.
"""
