"""Small architectures under the names of large ones; as a program, what makes the work of this kernel small."""

import functools
import json
import math
import os


def resnet50():
    """A ResNet that returns what ResNet-50 does: one block in place of three to six, narrow, on a coarse picture."""
    from torchvision.models.resnet import Bottleneck, ResNet

    network = ResNet(Bottleneck, [1, 1, 1, 1], width_per_group=8)
    network.conv1.stride = (8, 8)
    return network


def inception_v3(**options):
    """Inception-V3 on a coarse picture, with convolutions of eight groups where it can be."""
    from torchvision.models import inception

    def conv(inputs, outputs, **more):
        more |= {"stride": 6} if inputs == 3 else {"groups": math.gcd(inputs, outputs, 8)}
        return inception.BasicConv2d(inputs, outputs, **more)

    letters = [getattr(inception, f"Inception{letter}") for letter in "ABCDE"]
    blocks = [conv, *(functools.partial(block, conv_block=conv) for block in letters), inception.InceptionAux]
    return inception.Inception3(inception_blocks=blocks, **options)


def tell() -> None:
    """Make the libraries build these, and the package repeat less and draw at half of a screen's resolution."""
    import torchvision.models
    from open_clip import factory

    from spec_repro.agreement import calibration, gaussian
    from spec_repro.headless import record

    torchvision.models.resnet50, torchvision.models.inception_v3 = resnet50, inception_v3
    for name, quick in (("ViT-B-32-quickgelu", True), ("ViT-B-32", False)):
        factory._MODEL_CONFIGS[name] = json.loads(os.environ["SMALL_CLIP"]) | {"quick_gelu": quick}
    for repeated in (calibration.held_out, calibration.over_halves, calibration.interval_of_halves):
        repeated.__kwdefaults__["repeats"] = 3
    for repeated in (calibration.held_out, gaussian.surrogate):
        repeated.__kwdefaults__["runs"] = 1
    record.DPI = 55


if __name__ == "__main__":
    tell()
