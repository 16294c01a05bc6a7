"""RapidOCR's recogniser from its package, PaddleOCR's PP-OCRv6 small in ONNX Runtime, as it reads crops."""

from collections.abc import Callable

import numpy as np
from rapidocr import RapidOCR  # type: ignore[import-not-found]
from rapidocr.ch_ppocr_rec import TextRecInput  # type: ignore[import-not-found]

from wordmill.pictures.image import Picture


def reader(batch: int, threads: int) -> Callable[[list[Picture]], object]:
    """Return its way from crops (H, W, 3) to texts, by so many threads."""
    settings = {"Global.use_det": False, "Global.use_cls": False, "Global.log_level": "error",
                "Rec.rec_batch_num": batch, "EngineConfig.onnxruntime.intra_op_num_threads": threads}  # fmt: skip
    engine = RapidOCR(params=settings)
    engine(np.zeros((48, 320, 3), np.uint8))  # it loads its recogniser when it is first asked
    return lambda crops: engine.text_rec(TextRecInput(img=crops, return_word_box=False))
