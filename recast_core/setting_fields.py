"""Every setting of a run: its name, default and help, in groups that a reader wants together.

A setting is one field here; the command line, its help and Flower's run configuration follow.
"""

from __future__ import annotations

from dataclasses import dataclass

from recast_core.recipe import TrainingSettings, setting

DEPLOYED = "digits_resnet20"


@dataclass(frozen=True)
class Adaptation:
    """What of the backbone is adapted, and by which method."""

    backbone: str = setting(
        DEPLOYED,
        "digits_resnet20 (a classifier of digits), glyph_resnet20 (it saw letters), a torchvision "
        "NAME:WEIGHTS, file:PATH, hf:NAME, timm:NAME or module:FACTORY.",
    )
    target: str = setting(
        "conv", "attn, mlp, attn+mlp, conv, or module-name patterns with commas.", bank=True
    )
    groups: int = setting(0, "Groups for each kind of layer; 0 is one.", bank=True)
    templates: int = setting(
        0, "Templates per group; 0 is one per layer, which is exact.", bank=True
    )
    sets: int = setting(1, "Coefficient sets K; their mean is sent.", bank=True)
    basis: str = setting("own", "own (the layers' own weights) or orthonormal.", bank=True)
    residual: bool = setting(False, "Add combinations to the backbone's own weights.", bank=True)
    source: str = setting(
        "closed-form",
        "closed-form, gradient, vae or seeded: where templates come from. Of seeded ones every "
        "client makes the bank itself, from --seed.",
    )
    bank: str = setting(
        "", "A bank's file or a packaged one (digits_resnet20), in place of making one."
    )
    method: str = setting(
        "recast",
        "recast, head-only, norm-groups[:GROUPS], norm-affine, tiny-lora[:NUMBERS[:SECTIONS]], "
        "lora-xs[:RANK], vera[:RANK], lora[:RANK[:TARGET]], full, ...: what trains. LoRA's "
        "target is --target where it names none.",
    )


@dataclass(frozen=True)
class Learning(TrainingSettings):
    """What is learned, and how it goes over a task's rounds."""

    learning_rate: float = setting(
        0.0,
        "Of what trains; 0 is the method's customary rate, 2e-2 for recast, or what a shift bank "
        "says itself, 0.4 for the packaged one.",
    )
    epochs: int = setting(4, "Local passes per round.")
    decay: str = setting(
        "auto",
        "none or cosine: how the learning rate falls over a task's rounds. auto is cosine with "
        "head backbone, else none.",
    )
    begin: str = setting(
        "nearest",
        "nearest or bank: with head backbone, a task starts at the bank's start, or (nearest) at "
        "the earlier task that fits a few of each client's images best, where it clearly fits "
        "those of a third of the clients better than the bank's start.",
    )
    tasks: str = setting(
        "impulse=digits[50%:]+impulse:4 motion=digits[50%:]+motion:4 fog=digits[50%:]+fog:5",
        'DATA specifications, learned in this order, e.g. "digits npz:flowers.npz".',
    )
    rounds: int = setting(6, "Rounds per task.")
    head: str = setting(
        "auto",
        "local or linear (stay on their client), means, ridge or shared (merged by the server), "
        "backbone (the deployed network's own, kept: tasks are new domains of its classes), or "
        "task:NAME[:KIND] (tasks after NAME keep its head) or task:NAME@PATH (of another run or "
        "library). auto: backbone for the packaged digits_resnet20 with digits, else local.",
    )
    statistics: str = setting(
        "auto",
        "frozen, or recompute: with head backbone, the first half of the BatchNorms normalise by "
        "each client's own images wherever that serves it better. auto recomputes with head "
        "backbone.",
    )


@dataclass(frozen=True)
class Updates:
    """What travels, and what becomes of it."""

    bits: int = setting(
        0,
        "Width of an update's numbers: 32, 16, or 8 to 1. 0 is 8, or down to 4 where an "
        "update then fits one LoRaWAN frame of 51 bytes.",
    )
    broadcast_bits: int = setting(16, "Width of a broadcast's numbers: 32, 16, or 8 to 1.")
    rounding: str = setting("nearest", "nearest or stochastic: of an update's numbers.")
    error_feedback: bool = setting(
        False, "Add to an update what rounding took from the one before."
    )
    transforms: str = setting(
        "",
        "What clients do to an update before it leaves, in this order: clip:LENGTH, or what a "
        "plug-in registers.",
    )
    report_loss: bool = setting(
        False,
        "Clients also tell their training loss, in 3 bytes of an update; simulated ones need none.",
    )
    aggregation: str = setting(
        "clipped",
        "How updates become the next coefficients: clipped (the mean, none longer than twice the "
        "median), mean, median, trimmed, geometric-median, krum or multi-krum.",
    )
    max_weight: float = setting(
        3.0,
        "Times the median of all clients' counts of images that a client's own may count, in a "
        "round, a head that travels and an accuracy; 0 for no limit.",
    )
    probe: str = setting(
        "auto",
        "Images of the server's own, NAME=DATA for each task, whose training images judge each "
        "update and each round before it is recorded; none, or auto: where clients are simulated "
        "the tasks' own judge a round, else none do.",
    )


@dataclass(frozen=True)
class Privacy:
    """What the results may tell of any one client."""

    dp_epsilon: float = setting(
        0.0,
        "Differential privacy of each client over the whole run: the budget of all rounds and "
        "tasks together; 0 for none.",
    )
    dp_delta: float = setting(1e-5, "How probable it may be that --dp-epsilon does not hold.")
    dp: str = setting(
        "central",
        "central (the server clips each update and adds noise to their sum), local (each client "
        "adds noise to its own) or distributed (with --secure-aggregation: each adds a part of it "
        "to its own), where there is a --dp-epsilon.",
    )
    dp_sampling: str = setting(
        "fixed",
        "fixed or poisson: how --clients-per-round are drawn with --dp-epsilon; with poisson each "
        "client by itself, as many on average.",
    )
    clip: str = setting(
        "auto",
        "Length that a client's update may have with --dp-epsilon or --secure-aggregation; auto "
        "follows the learning rate and, with --dp central, the clients' median, and is no limit "
        "without --dp-epsilon.",
    )
    secure_aggregation: bool = setting(
        False,
        "Hide each update in a sum with at least two others: the server learns sums alone.",
    )


@dataclass(frozen=True)
class Images:
    """What clients have to learn from."""

    partition: str = setting(
        "dirichlet:0.5",
        "iid, dirichlet:ALPHA, shards:CLASSES or natural: how simulated clients divide a task.",
    )
    labels: int = setting(
        -1,
        "Labelled training images of a task in the whole simulated fleet; -1 is all. Clients with "
        "data of their own have the labels that these have.",
    )
    skip_unreadable: bool = setting(False, "Go on without images in folders that cannot be read.")


@dataclass(frozen=True)
class Running:
    """Where a run goes, and how its rounds do."""

    seed: int = setting(0, "Of everything.")
    device: str = setting("auto", "auto, cpu or cuda.")
    run_dir: str = setting(
        "",
        "Where the registry goes, by default a folder of its own under runs/; an unfinished run "
        "in it is continued.",
    )
    registry: str = setting(
        "",
        "postgresql+psycopg://USER@HOST/DATABASE: keep registry and ledger there; by default in a "
        "file in the run's folder. Its password is PGPASSWORD or in ~/.pgpass.",
    )
    ledger: str = setting(
        "full",
        "full, or summary: of each round of a large fleet the rows of 20 clients and the sums of "
        "all others; totals are the same.",
    )
    parallel_tasks: int = setting(1, "Tasks learned in the same rounds; 1 is one after another.")
    clients_per_round: int = setting(0, "Clients that train a task in a round; 0 is all.")
    deadline: float = setting(3600.0, "Seconds that a round, evaluation or greeting may take.")
    quorum: str = setting(
        "all", "Updates that close a round early: all, a count (5) or a share (0.8)."
    )
    max_lag: float = setting(
        10.0,
        "Times as long as the others that a client may take before it is no longer waited for, 20 "
        "seconds at least; 0 for the deadline alone.",
    )
    keep_running: bool = setting(False, "Wait for `recast tasks add` when all tasks are learned.")
    evaluate_every: int = setting(
        0,
        "Also evaluate a task after every so many of its rounds, for learning curves; its bytes "
        "count. 0 is after its last round alone.",
    )
    baseline: bool = setting(
        True,
        "Where heads travel, also learn one on the backbone as it came, to report what the "
        "coefficients add.",
    )
