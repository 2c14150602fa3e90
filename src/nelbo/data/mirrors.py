"""The mirrors of the named sets, with hashes (MD5 of content as in torchvision, SHA-256 as in TFDS)."""

from nelbo.data.download import Remote, RemoteFile

IDX_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


def _files(*hashes: str) -> tuple[RemoteFile, ...]:
    """Return MNIST's four files with the SHA-256 of each and, where it is known, the MD5 of its content."""
    return tuple(RemoteFile(name, *pair.split()) for name, pair in zip(IDX_FILES, hashes, strict=True))


REMOTES = {
    "mnist": Remote(
        folder="mnist",
        files=_files(
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609 6bbc9ace898e44ae57da46a324031adb",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c a25bea736e30d166cdddb491f175f624",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6 2646ac647ad5339dbf082846283269ea",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6 27ae3e4e09519cfbb04c329615203637",
        ),
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
    ),
    "fashion-mnist": Remote(
        folder="fashion-mnist",
        files=_files(
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84 f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845 9018921c3c673c538a1fc5bad174d6f9",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073 8181f5470baa50b63fa0f6fddb340f0a",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5 15d484375f8d13e6eb1aabb0c3f46965",
        ),
        mirrors=(
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ),
    ),
    "kmnist": Remote(
        folder="kmnist",
        files=_files(
            "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
            "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
            "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
            "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
        ),
        mirrors=(
            "https://codh.rois.ac.jp/kmnist/dataset/kmnist/",
            "http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
        ),
    ),
    "emnist": Remote(
        folder="emnist",
        files=(RemoteFile("gzip.zip", "fb9bb67e33772a9cc0b895e4ecf36d2cf35be8b709693c3564cea2a019fcda8e"),),
        mirrors=(
            "https://biometrics.nist.gov/cs_links/EMNIST/",
            "https://www.itl.nist.gov/iaui/vip/cs_links/EMNIST/",
        ),
    ),
}
