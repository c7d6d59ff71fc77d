"""The figures by name, and the runs of each: small ones, and the paper's as far as they are known.

What the paper does not print is assumed: the header of an experiment says what, else a comment here. It never
says over how many seeds its figures are: three are taken, or the five of a table.
"""

from sam.paper.figure_plan import FigurePlan, Preset, Sweep, TableRuns

FIVE = (0, 1, 2, 3, 4)
SMALL = "experiment=small/figures"
WRN = ("experiment=table1/wrn_28_10_200", "recipe=released_code", "augmentation=basic")
RESNET50 = "experiment=table2/resnet50_100,table2/resnet50_200,table2/resnet50_400"
SURFACES = ("experiment=figures/fig1_surfaces", "recipe=released_code")
BY_M = ("experiment=figures/fig3_rho", "recipe=released_code")
# Predictive power needs networks whose gap between train and test error differs. The paper took those of the
# PGDL competition; here they differ in learning rate, batch and weight decay.
VARIED = ("m=64", "optimizer.lr=0.05,0.2", "batch_size=64,256", "optimizer.weight_decay=0,0.0005")
# Figure 7; the radius, which the paper does not print, is that of the training.
STEPS = ("analysis=sharpness", "analysis.ascent_steps=[1,2,3,5]")

SMALL_PAIR = (Sweep((SMALL, "optimizer=sgd,sam")),)
PAPER_PAIR = (Sweep((*WRN, "dataset=cifar10", "optimizer=sgd,sam"), FIVE),)
SMALL_BY_M = (
    Sweep((SMALL, "optimizer=sgd", "m=4,16,128")),
    Sweep((SMALL, "optimizer=sam", "optimizer.rho=0.05,0.1,0.2", "m=4")),
    Sweep((SMALL, "optimizer=sam", "optimizer.rho=0.05,0.1,0.2,0.4", "m=16,128")),
)
PAPER_BY_M = (
    Sweep((*BY_M, "optimizer=sgd", "m=1,4,16,64,256")),
    Sweep((*BY_M, "optimizer=sam", "optimizer.rho=0.01,0.025,0.05,0.075,0.1,0.15", "m=1,4,16,64,256")),
)
SMALL_RHO = (
    Sweep((SMALL, "optimizer=sgd")),
    Sweep((SMALL, "optimizer=sam", "optimizer.rho=0.01,0.05,0.1,0.2,0.4,0.8")),
)
# The paper's grid, on the held-out images on which it chose.
PAPER_RHO = (
    Sweep((*WRN, "dataset=cifar10", "dataset.validation=last", "optimizer=sgd")),
    Sweep(
        (
            *WRN,
            "dataset=cifar10",
            "dataset.validation=last",
            "optimizer=sam",
            "optimizer.rho=0.01,0.02,0.05,0.1,0.2,0.5",
        )
    ),
)
SMALL_BALLS = (
    *SMALL_RHO,
    Sweep((SMALL, "optimizer=sam", "optimizer.p=inf", "optimizer.rho=0.0001,0.0003,0.001,0.003")),
    Sweep((SMALL, "optimizer=sam", "optimizer.direction=random", "optimizer.rho=0.1,0.4,1.6,6.4")),
)
# Figure 6 names "a WideResNet"; its axis ends at 1e-6 and 1e3.
PAPER_BALLS = (
    Sweep((*WRN, "dataset=cifar10", "optimizer=sgd")),
    Sweep((*WRN, "dataset=cifar10", "optimizer=sam", "optimizer.rho=0.001,0.01,0.02,0.05,0.1,0.2,0.5")),
    Sweep((*WRN, "dataset=cifar10", "optimizer=sam", "optimizer.p=inf", "optimizer.rho=1e-6,1e-5,1e-4,1e-3")),
    Sweep(
        (
            *WRN,
            "dataset=cifar10",
            "optimizer=sam",
            "optimizer.direction=random",
            "optimizer.rho=0.01,0.1,1,10,100,1000",
        )
    ),
)
SMALL_LENGTHS = (Sweep((SMALL, "epochs=5,10,20,40", "optimizer=sgd,sam")),)
PAPER_LENGTHS = (Sweep((RESNET50, "recipe=released_code", "optimizer=sgd,sam"), FIVE),)


def orders(base: tuple[str, ...], *looks: str) -> tuple[Sweep, ...]:
    """Return the sweep over SAM with and without the second-order term."""
    return (Sweep((*base, "optimizer=sam", "optimizer.second_order=false,true"), looks=looks),)


FIGURES = {
    "fig1": FigurePlan(
        "Figure 1 left: relative error reduction from SGD to SAM, printed and measured",
        {
            # Tables 2 and 3 on a folder of images have twins too; only you know the folder.
            "small": Preset(
                (
                    Sweep(
                        ("experiment=small/table1,small/table4,small/table5", "optimizer=sgd,sam"),
                    ),
                )
            ),
            "paper": Preset(tuple(TableRuns(table) for table in "12345")),
        },
    ),
    "fig1-surfaces": FigurePlan(
        "Figure 1 middle and right: the loss around a minimum of SGD and one of SAM",
        {
            "small": Preset(SMALL_PAIR, ("analysis=landscape",)),
            "paper": Preset((Sweep((*SURFACES, "optimizer=sgd,sam"), (0,)),), ("analysis=landscape",)),
        },
        needs="landscape",
        settings={"dimensions": 2},
    ),
    "fig3-spectrum": FigurePlan(
        "Figure 3 left: Hessian spectra along training, SGD and SAM",
        {
            "small": Preset((Sweep(("experiment=small/fig3_spectrum", "optimizer=sgd,sam")),)),
            "paper": Preset(
                (
                    Sweep(
                        ("experiment=figures/fig3_spectrum", "recipe=released_code", "optimizer=sgd,sam"),
                        (0,),
                    ),
                )
            ),
        },
        needs="hessian",
    ),
    "fig3-rho": FigurePlan(
        "Figure 3 middle: test error against rho, a line for each m",
        {"small": Preset(SMALL_BY_M), "paper": Preset(PAPER_BY_M)},
    ),
    "fig3-predictive": FigurePlan(
        "Figure 3 right: predictive power of m-sharpness against m",
        {
            "small": Preset(
                (
                    *SMALL_BY_M,
                    Sweep((SMALL, "optimizer=sgd", *VARIED), (0,)),
                    Sweep((SMALL, "optimizer=sam", "optimizer.rho=0.1", *VARIED), (0,)),
                ),
                ("analysis=sharpness",),
            ),
            "paper": Preset(
                (*PAPER_BY_M, Sweep((*BY_M, "optimizer=sgd,sam", *VARIED), (0,))), ("analysis=sharpness",)
            ),
        },
        needs="sharpness",
        settings={"ascent_steps": [1]},
    ),
    "fig4": FigurePlan(
        "Figure 4: train error at w + eps and test error at w, first- and second-order SAM",
        {
            "small": Preset(orders((SMALL,))),
            "paper": Preset(orders(("experiment=figures/fig4", "recipe=released_code"))),
        },
    ),
    "fig5": FigurePlan(
        "Figure 5: cosine between first- and second-order updates along training",
        {
            "small": Preset(orders((SMALL,), "analysis=second_order", "analysis.every=2")),
            "paper": Preset(
                orders(
                    ("experiment=figures/fig4", "recipe=released_code"),
                    "analysis=second_order",
                    "analysis.every=10",
                )
            ),
        },
        needs="second_order",
    ),
    "fig6": FigurePlan(
        "Figure 6: test error against the radius of three balls: 2-norm, infinity norm, random direction",
        {"small": Preset(SMALL_BALLS), "paper": Preset(PAPER_BALLS)},
    ),
    "fig7": FigurePlan(
        "Figure 7: rise of the loss for 1, 2, 3 and 5 ascent steps along training",
        {
            "small": Preset(
                (
                    Sweep(
                        (SMALL, "optimizer=sgd,sam"),
                        looks=(*STEPS, "analysis.every=2", "analysis.m=[128]", "analysis.rho=0.2"),
                    ),
                )
            ),
            "paper": Preset(
                tuple(
                    Sweep(
                        (*WRN, f"dataset={dataset}", "optimizer=sam"),
                        looks=(*STEPS, "analysis.every=10", "analysis.m=[32]", f"analysis.rho={rho}"),
                    )
                    for dataset, rho in (("cifar10", 0.05), ("cifar100", 0.1))
                )
            ),
        },
        needs="sharpness",
        settings={"ascent_steps": [1, 2, 3, 5]},
    ),
    "sharpness": FigurePlan(
        "m-sharpness of trained networks against m, SGD beside SAM",
        {
            "small": Preset(SMALL_PAIR, ("analysis=sharpness",)),
            "paper": Preset(PAPER_PAIR, ("analysis=sharpness",)),
        },
        needs="sharpness",
        settings={"ascent_steps": [1]},
    ),
    "error-compute": FigurePlan(
        "error against forward-backward passes and seconds, SGD and SAM of several lengths",
        {"small": Preset(SMALL_LENGTHS), "paper": Preset(PAPER_LENGTHS)},
    ),
    "error-epochs": FigurePlan(
        "final error against the number of epochs, SGD and SAM",
        {"small": Preset(SMALL_LENGTHS), "paper": Preset(PAPER_LENGTHS)},
    ),
    "rho": FigurePlan(
        "error against rho, a line for each method, SGD as a band",
        {"small": Preset(SMALL_RHO), "paper": Preset(PAPER_RHO)},
    ),
    "curves": FigurePlan(
        "test and train error along training, a panel for each setting",
        {"small": Preset(SMALL_PAIR), "paper": Preset(PAPER_PAIR)},
    ),
    "calibration": FigurePlan(
        "reliability diagram: accuracy minus confidence against confidence",
        {"small": Preset(SMALL_PAIR, ()), "paper": Preset(PAPER_PAIR, ())},
        needs="calibration",
    ),
}
