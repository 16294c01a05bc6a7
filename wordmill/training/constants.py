"""What optimisers, the moving average and the loss scale go by in both frameworks; recipes hold the rest."""

EPSILON = 1e-8  # of Adam
RHO, ADADELTA_EPSILON = 0.9, 1e-6
AVERAGE_WARMUP = 2000.0  # steps; MindOCR's moving average starts short and grows longer
GROWTH_INTERVAL = 1000  # finite steps in a row after which a dynamic loss scale is doubled, as MindOCR's
