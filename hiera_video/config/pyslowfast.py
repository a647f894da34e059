"""PySlowFast's config keys that do not exist here: the new name of each, or its replacement.

PySlowFast's defaults.py has 339 keys. Keys in neither table have the same name here.
"""

from collections.abc import Mapping
from types import MappingProxyType

# PySlowFast's name -> ours, for keys whose value has the same or nearly the same meaning.
RENAMED: Mapping[str, str] = MappingProxyType(
    {
        "AUG.MASK_RATIO": "MASK.RATIO",
        "DATA.TRAIN_CROP_NUM_SPATIAL": "AUG.NUM_SAMPLE",
        "MIXUP.LABEL_SMOOTH_VALUE": "SOLVER.LABEL_SMOOTHING",
        "MODEL.DETACH_FINAL_FC": "MODEL.LINEAR_PROBE",
        "MODEL.DROPCONNECT_RATE": "MODEL.DROP_PATH_RATE",
        "MVIT.DROPPATH_RATE": "MODEL.DROP_PATH_RATE",
        "TEST.NUM_ENSEMBLE_VIEWS": "TEST.NUM_TEMPORAL_CLIPS",
        "TEST.SAVE_RESULTS_PATH": "TEST.SCORES_FILE",
    }
)

_COLOURS = "only RandAugment changes colours: AUG.AA_TYPE"
_DETECTION = "whole videos are classified, and actions are not located in them"
_IMAGES = "models train on videos, not on images"
_LISTS = "a list is read completely, once for all processes"
_MASKS = "masks are drawn where the loss is computed"
_MODELS = "MODEL.ARCH and MODEL.MODEL_NAME choose a complete model, and none of these"
_PYTORCH = "checkpoints are always PyTorch's"
_SCHEDULE = "the schedule is a warm-up and a cosine: SOLVER.WARMUP_EPOCHS, SOLVER.COSINE_END_LR"
_SSL = "it is TASK ssl"

# PySlowFast's name -> its replacement, worded to follow "here". A name that ends in * covers all
# keys with that prefix that have no entry of their own.
REPLACED: Mapping[str, str] = MappingProxyType(
    {
        "AUG.COLOR_JITTER": f"{_COLOURS} (PySlowFast jitters only those of images)",
        "AUG.GEN_MASK_LOADER": _MASKS,
        "AUG.INTERPOLATION": "resizing and RandAugment are bilinear",
        "AUG.MASK_FRAMES": "it is MASK.STRATEGY frame",
        "AUG.MASK_TUBE": "it is MASK.STRATEGY tube",
        "AUG.MASK_WINDOW_SIZE": "masks have one cell for each mask unit, 2 frames x 32 x 32 pixels",
        "AUG.MAX_MASK_PATCHES_PER_BLOCK": "masks are not made of blocks: MASK.STRATEGY",
        "AUG.RE_COUNT": "one box is erased",
        "AUG.RE_SPLIT": "any view may be erased; PySlowFast does not read this key either",
        "AVA.*": _DETECTION,
        "BENCHMARK.*": "tools/benchmark.py loader measures the loading of videos",
        "BN.*": "Hiera has no batch norm",
        "CONTRASTIVE.*": "pretraining is a masked autoencoder: TASK ssl",
        "DATA.COLOR_RND_GRAYSCALE": _COLOURS,
        "DATA.DECODING_SHORT_SIZE": "frames are decoded at their own size; tools/prepare_videos.py "
        "makes smaller files in advance",
        "DATA.DUMMY_LOAD": "tools/benchmark.py train measures steps without loading",
        "DATA.ENSEMBLE_METHOD": "the scores of the views are always averaged",
        "DATA.IN22K_TRAINVAL": _IMAGES,
        "DATA.IN22k_VAL_IN1K": _IMAGES,
        "DATA.INPUT_CHANNEL_NUM": "a clip always has three channels",
        "DATA.INV_UNIFORM_SAMPLE": "crops are drawn by fraction of the area: "
        "DATA.TRAIN_JITTER_SCALES_RELATIVE",
        "DATA.IN_VAL_CROP_RATIO": "the shorter side of a test view is DATA.TEST_CROP_SIZE",
        "DATA.LOADER_CHUNK_OVERALL_SIZE": _LISTS,
        "DATA.LOADER_CHUNK_SIZE": _LISTS,
        "DATA.MULTI_LABEL": "a video has one label, and the metric is accuracy",
        "DATA.PATH_LABEL_SEPARATOR": "space, comma and tab are all understood",
        "DATA.PATH_TO_PRELOAD_IMDB": _IMAGES,
        "DATA.REVERSE_INPUT_CHANNEL": "frames are always RGB",
        "DATA.SKIP_ROWS": _LISTS,
        "DATA.SSL_*": f"pretraining changes no colours; in fine-tuning {_COLOURS}",
        "DATA.TIME_DIFF_PROB": "frames are never replaced by their differences",
        "DATA.TRAIN_CROP_NUM_TEMPORAL": "the views of a video are crops of one clip: "
        "AUG.NUM_SAMPLE",
        "DATA.TRAIN_JITTER_FPS": "DATA.SAMPLING_RATE and DATA.TARGET_FPS fix the distance between "
        "the frames of a clip",
        "DATA.TRAIN_JITTER_MOTION_SHIFT": "the same box is cropped from all frames of a clip",
        "DATA.TRAIN_JITTER_SCALES": "crops are drawn by fraction of the area: "
        "DATA.TRAIN_JITTER_SCALES_RELATIVE [0.08, 1.0]",
        "DATA.TRAIN_PCA_*": _COLOURS,
        "DATA.USE_OFFSET_SAMPLING": "the clips of a dense test always spread from the first frame "
        "to the last, as they do there with True; training is the same either way",
        "DATA_LOADER.ENABLE_MULTI_THREAD_DECODE": "each process decodes on one thread: "
        "DATA_LOADER.NUM_WORKERS",
        "DEMO.*": "tools/predict.py labels a video, and tools/serve.py does in a browser",
        "DETECTION.*": _DETECTION,
        "DIST_BACKEND": "it follows from the device",
        "LOG_MODEL_INFO": "the log has the parameters, and tools/flops_report.py counts FLOPs",
        "MASK.DECODER_SEP_POS_EMBED": "the decoder learns one position for each of its tokens",
        "MASK.DEC_KV_*": "the decoder's attention pools nothing",
        "MASK.ENABLE": _SSL,
        "MASK.HEAD_TYPE": "the decoder is a transformer: MASK.DECODER_DEPTH",
        "MASK.MAE_ON": _SSL,
        "MASK.MAE_RND_MASK": "it is MASK.STRATEGY random",
        "MASK.NORM_PRED_PIXEL": "the pixels of each patch are always normalised",
        "MASK.PER_FRAME_MASKING": "masks are those of MASK.STRATEGY, which hide no fixed fraction "
        "of each frame",
        "MASK.PRED_HOG": "pixels are predicted, not HOG",
        "MASK.PRETRAIN_DEPTH": "the decoder always gets stages 1, 2 and 4, fused",
        "MASK.SCALE_INIT_BY_DEPTH": "initial weights do not depend on the depth",
        "MASK.TIME_STRIDE_LOSS": "the target is always the first frame of each token, as there "
        "with True",
        "MODEL.FC_INIT_STD": "each model initialises its own classifier",
        "MODEL.FP16_ALLREDUCE": "gradients are all-reduced without compression",
        "MODEL.FROZEN_BN": "Hiera has no batch norm; MODEL.FREEZE_LAYERS freezes layers",
        "MODEL.HEAD_ACT": "models return logits, and the metrics apply the softmax",
        "MODEL.LOSS_FUNC": "the loss follows from MIXUP and SOLVER.LABEL_SMOOTHING",
        "MODEL.MULTI_PATHWAY_ARCH": "every model takes one clip",
        "MODEL.SINGLE_PATHWAY_ARCH": "every model takes one clip",
        "MULTIGRID.*": "clips keep one size and length throughout training",
        "MVIT.*": "MODEL.MODEL_NAME names a Hiera, which fixes its layers, and there is no MViT",
        "MVIT.DROPOUT_RATE": "blocks have no dropout; MODEL.DROPOUT_RATE acts only before the "
        "classifier",
        "MVIT.ZERO_DECAY_POS_CLS": "positions are never decayed",
        "NONLOCAL.*": _MODELS,
        "NUM_SHARDS": "torchrun knows how many machines there are",
        "PREFETCH.*": "batches are always read ahead: DATA_LOADER.NUM_WORKERS",
        "RESNET.*": _MODELS,
        "SHARD_ID": "torchrun knows which machine this is",
        "SLOWFAST.*": _MODELS,
        "SOLVER.BASE_LR_SCALE_NUM_SHARDS": "BASE_LR is scaled by the batch: SOLVER.BASE_BATCH_SIZE",
        "SOLVER.CLIP_GRAD_VAL": "the norm is clipped: SOLVER.CLIP_GRAD_L2NORM",
        "SOLVER.COSINE_AFTER_WARMUP": "the cosine always starts at its peak after the warm-up, as "
        "there with True",
        "SOLVER.DAMPENING": "SGD has none",
        "SOLVER.GAMMA": _SCHEDULE,
        "SOLVER.LARS_ON": "there are AdamW and SGD: SOLVER.OPTIMIZING_METHOD",
        "SOLVER.LRS": _SCHEDULE,
        "SOLVER.LR_POLICY": _SCHEDULE,
        "SOLVER.NESTEROV": "SGD with SOLVER.MOMENTUM is always Nesterov's",
        "SOLVER.STEPS": _SCHEDULE,
        "SOLVER.STEP_SIZE": _SCHEDULE,
        "SOLVER.WARMUP_FACTOR": "it is a learning rate: SOLVER.WARMUP_START_LR",
        "SOLVER.ZERO_WD_1D_PARAM": "vectors and positions are never decayed, as there with True",
        "TENSORBOARD.CATEGORIES_PATH": "classes have no categories",
        "TENSORBOARD.CLASS_NAMES_PATH": "class names are those of the dataset (classes.txt)",
        "TENSORBOARD.CONFUSION_MATRIX.*": "every test draws it in OUTPUT_DIR/test_confusion.png",
        "TENSORBOARD.HISTOGRAM.*": "tools/report.py shows the accuracy of each class",
        "TENSORBOARD.LOG_DIR": "it is inside OUTPUT_DIR",
        "TENSORBOARD.MODEL_VIS.*": "tools/visualize.py shows what a prediction rests on",
        "TENSORBOARD.PREDICTIONS_PATH": "tools/report.py shows the results of a test",
        "TENSORBOARD.WRONG_PRED_VIS.*": "tools/report.py shows the mistakes of a test",
        "TEST.CHECKPOINT_TYPE": _PYTORCH,
        "TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN": "the usual name prefixes are removed automatically",
        "TRAIN.CHECKPOINT_EPOCH_RESET": "TRAIN.CHECKPOINT_FILE_PATH always starts at epoch 0, and "
        "TRAIN.AUTO_RESUME resumes",
        "TRAIN.CHECKPOINT_INFLATE": "weights of image models are not converted to video models",
        "TRAIN.CHECKPOINT_IN_INIT": "weights of image models are not converted to video models",
        "TRAIN.CHECKPOINT_TYPE": _PYTORCH,
        "TRAIN.KILL_LOSS_EXPLOSION_FACTOR": "steps with a loss that is not finite are skipped, and "
        "TRAIN.MAX_BAD_STEPS in a row end the run",
        "VIS_MASK.*": "tools/visualize.py mae draws masks and the predictions under them",
        "WANDB.*": "figures go to TensorBoard (TENSORBOARD.ENABLE) and, as JSON, to the log",
        "X3D.*": "the only one is X3D-S: MODEL.ARCH baselines, MODEL.MODEL_NAME x3d_s",
    }
)


def replacement(name: str) -> tuple[str, str]:
    """Return the entry of `REPLACED` for a key and its text, or two empty strings."""
    beginnings = [key for key in REPLACED if key[-1] == "*" and f"{name}.".startswith(key[:-1])]
    entry = name if name in REPLACED else max(beginnings, key=len, default="")
    return entry, REPLACED.get(entry, "")
