"""Small random models in the formats of the real ones, written to disk with tokenizers that are real, too."""

import json
import shutil

import sentencepiece
import torch
import torchvision
from safetensors.torch import save_file
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    BitImageProcessor,
    ConvNextConfig,
    ConvNextImageProcessor,
    ConvNextModel,
    Dinov2Config,
    Dinov2Model,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaTokenizer,
    T5Config,
    T5ForConditionalGeneration,
    T5Tokenizer,
)

TEXTS = [
    "A happy male pilot is holding a camera.",
    "a tired female chef, juggling",
    "Zebras, xylophones & quartz: 1234!",
    "one",
    "An angry female scientist is climbing a golden throne. " * 4,
]
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "initializer_range": 0.3}
CLIP = {
    "embed_dim": 24,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}


def dinov2(folder):
    """Of the real image size, 518, with its position embeddings; the processor is that of facebook/dinov2-base."""
    Dinov2Model(Dinov2Config(**SMALL, image_size=518, patch_size=14, drop_path_rate=0.3)).save_pretrained(folder)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    BitImageProcessor(image_mean=mean, image_std=std, size={"shortest_edge": 256}).save_pretrained(folder)


def convnext(folder):
    config = ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1])
    ConvNextModel(config).save_pretrained(folder)
    ConvNextImageProcessor(size={"shortest_edge": 384}).save_pretrained(folder)


def roberta(folder):
    """With the head of its pre-training and without a pooling layer, as FacebookAI/roberta-base has it."""
    marks = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(TEXTS, vocab_size=400, special_tokens=marks, show_progress=False)
    folder.mkdir()
    trained.save_model(str(folder))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 512}))
    tokenizer = RobertaTokenizer.from_pretrained(folder)
    config = RobertaConfig(**SMALL, intermediate_size=32, vocab_size=len(tokenizer), max_position_embeddings=514)
    config.type_vocab_size = 1
    RobertaForMaskedLM(config).save_pretrained(folder)


def bert(folder):
    words = sorted({word.strip(".,:!") for text in [*TEXTS, "query"] for word in text.lower().split()})
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *".,:!&"]
    vocabulary = dict.fromkeys([*marks, *words, *letters, *(f"##{letter}" for letter in letters)])
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 512, "do_lower_case": True}))
    tokenizer = BertTokenizer.from_pretrained(folder)
    BertModel(BertConfig(**SMALL, intermediate_size=32, vocab_size=len(tokenizer))).save_pretrained(folder)


def t5(folder):
    """Encoder and decoder in several shards; the tokenizer is trained by sentencepiece."""
    folder.mkdir()
    pieces = folder.parent / "pieces"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_prefix=str(pieces), vocab_size=80, hard_vocab_limit=False,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=9,
    )  # fmt: skip
    model = sentencepiece.SentencePieceProcessor(model_file=f"{pieces}.model")
    vocabulary = [(model.id_to_piece(i), model.get_score(i)) for i in range(len(model))]
    T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=512).save_pretrained(folder)
    config = T5Config(
        vocab_size=len(vocabulary), d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False,
    )  # fmt: skip
    T5ForConditionalGeneration(config).save_pretrained(folder, max_shard_size="5KB")


def clip(folder, config):
    import open_clip

    folder.mkdir()
    model = open_clip.CLIP(**config).eval()
    for name, parameter in model.named_parameters():  # larger than before a training, so that the activation matters
        parameter.data *= 3 if name.endswith("c_fc.weight") else 10 if name.endswith("c_proj.weight") else 1
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")


def swav(path, make=torchvision.models.resnet50):
    """As published: ``module.`` before each key, no classifier, projection head and prototypes."""
    model = make()
    state = {f"module.{key}": value for key, value in model.state_dict().items() if not key.startswith("fc.")}
    state |= {"module.projection_head.0.weight": torch.zeros(4, 2048), "module.prototypes.weight": torch.zeros(3, 4)}
    torch.save(state, path)


def inception(path, make=torchvision.models.inception_v3):
    state = make(init_weights=False).state_dict()
    for key in [key for key in state if key.endswith("conv.weight")]:
        state[key] *= 6**0.5  # torch's own initialisation halves the signal in each layer
    torch.save(state, path)


def into_hub(cache, repository, source, commit):
    """What a download of ``repository`` leaves in the cache of the hub: the files of the folder ``source``."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    shutil.copytree(source, folder / "snapshots" / commit)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
