"""The model under torch.export, ONNX, torch.compile and torch.func, which others build on."""

import shutil

import pytest
import torch
from torch.func import functional_call, grad, jvp, vjp, vmap

from dit_nb.model import BLOCKS
from support import DEVICES, model_inputs, relative, tiny_model

BATCH = torch.export.Dim("batch")
each_block = pytest.mark.parametrize("block", BLOCKS)
each_kind = pytest.mark.parametrize("classes", [5, 0])
each_model_slowly = pytest.mark.parametrize(
    "block, classes",
    [
        pytest.param(block, classes, marks=[] if (block, classes) == ("adaln_zero", 5) else pytest.mark.slow)
        for block in BLOCKS
        for classes in (5, 0)
    ],
)


def arguments(model, n: int = 3) -> tuple:
    """x, t, and for a model with classes y, the last label being the null class."""
    x, t, y = model_inputs(model, n, seed=n)
    if y is None:
        return x, t
    y[-1] = model.null_class
    return x, t, y


def dynamic_batch(args: tuple) -> dict:
    """What torch.export takes as `dynamic_shapes`: the first size of each argument is free."""
    return {name: {0: BATCH} for name, _ in zip("xty", args)}


def assert_same(function, model, limit: float = 1e-5, sizes: tuple = (1, 5)):
    """Expect what the model gives, for batch sizes other than the traced three images."""
    with torch.no_grad():
        for n in sizes:
            args = arguments(model, n)
            assert relative(function(*args), model(*args)) < limit, n


@pytest.mark.parametrize("strict", [False, pytest.param(True, marks=pytest.mark.slow)])
@each_kind
@each_block
def test_an_exported_program_takes_any_batch_size(block, classes, strict):
    model = tiny_model(block, num_classes=classes)
    args = arguments(model)
    program = torch.export.export(model, args, dynamic_shapes=dynamic_batch(args), strict=strict)
    assert_same(program.module(), model)


def onnx_function(model):
    """The model as ONNX, exported with three images, run by onnxruntime."""
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    runtime, args = pytest.importorskip("onnxruntime"), arguments(model)
    shapes = dynamic_batch(args)
    program = torch.onnx.export(model, args, dynamo=True, dynamic_shapes=shapes, verbose=False)
    data = program.model_proto.SerializeToString()
    session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return lambda *args: session.run(None, {name: a.numpy() for name, a in zip("xty", args)})[0]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:# The axis name")
@each_model_slowly
def test_onnx_takes_any_batch_size(block, classes):
    model = tiny_model(block, num_classes=classes)
    assert_same(onnx_function(model), model, limit=1e-4)


@each_model_slowly
def test_compiles_to_one_graph(block, classes):
    model = tiny_model(block, num_classes=classes)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=True)
    assert_same(compiled, model, sizes=(3, 5))


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_code_gives_the_same():
    model = tiny_model()
    torch._dynamo.reset()
    assert_same(torch.compile(model, fullgraph=True), model, limit=1e-4, sizes=(5,))


@each_block
def test_functional_call_uses_the_given_parameters(block):
    model, other = tiny_model(block), tiny_model(block, scale=0.2)
    args = arguments(model)
    own = model(*args)
    got = functional_call(model, dict(other.named_parameters()), args)
    assert torch.equal(got, other(*args)) and not torch.equal(got, own)
    assert torch.equal(model(*args), own)


def parameters(model) -> dict[str, torch.Tensor]:
    """The parameters of a model by name, without their history."""
    return {name: p.detach() for name, p in model.named_parameters()}


def random_like(point: dict, seed: int = 1) -> dict:
    """Standard normal numbers in the shapes of a dict of tensors."""
    generator = torch.Generator().manual_seed(seed)
    return {k: torch.randn(v.shape, generator=generator).to(v) for k, v in point.items()}


def finite_difference(function, point: dict, direction: dict, step: float = 1e-5):
    """The central difference of a function of a dict of tensors."""
    ahead, behind = (function({k: point[k] + s * direction[k] for k in point}) for s in (step, -step))
    return (ahead - behind) / (2 * step)


def functions_of(model) -> dict:
    """The output as a function of a dict of tensors, and where to differentiate it: {of: (function, point)}."""
    x, *rest = arguments(model)
    x = x.to(model.pos_embed.dtype)
    return {
        "x": (lambda at: model(at["x"], *rest), {"x": x}),
        "parameters": (lambda at: functional_call(model, at, (x, *rest)), parameters(model)),
    }


@pytest.mark.parametrize("of", ["x", "parameters"])
@each_kind
@each_block
def test_jvp_is_the_directional_derivative(block, classes, of):
    function, point = functions_of(tiny_model(block, num_classes=classes).double())[of]
    direction = random_like(point)
    out, slope = jvp(function, (point,), (direction,))
    assert relative(out, function(point)) < 1e-12
    assert relative(slope, finite_difference(function, point, direction)) < 1e-6


@pytest.mark.parametrize("device", DEVICES)
@each_block
def test_jvp_and_vjp_are_transposes(block, device):
    """In float32, where a GPU has fused attention: u (J v) = (u J) v."""
    model = tiny_model(block).to(device)
    args, point = [a.to(device) for a in arguments(model)], parameters(model)
    function, v = lambda at: functional_call(model, at, tuple(args)), random_like(point)
    out, forward = jvp(function, (point,), (v,))
    u = random_like({"out": out}, seed=2)["out"]
    (backward,) = vjp(function, point)[1](u)
    total = sum((backward[k] * v[k]).sum() for k in point)
    assert relative((u * forward).sum(), total) < 1e-3


@each_block
def test_jvp_of_a_gradient_is_a_product_with_the_hessian(block):
    function, point = functions_of(tiny_model(block).double())["parameters"]
    gradient = grad(lambda at: function(at).square().mean())
    direction = random_like(point)
    product = jvp(gradient, (point,), (direction,))[1]
    for name in point:
        wanted = finite_difference(lambda at: gradient(at)[name], point, direction)  # noqa: B023
        assert (product[name] - wanted).norm() < 1e-4 * (1 + wanted.norm()), name


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # vmap of the fused attention of a CPU
@each_kind
@each_block
def test_vmap_gives_the_gradient_of_each_image(block, classes):
    model = tiny_model(block, num_classes=classes).double()
    args, point = arguments(model), parameters(model)

    def loss(at, *image):
        return functional_call(model, at, tuple(a[None] for a in image)).square().mean()

    together = vmap(grad(loss), in_dims=(None, *[0] * len(args)))(point, *args)
    for i in range(len(args[0])):
        alone = grad(loss)(point, *(a[i] for a in args))
        assert all((together[k][i] - alone[k]).norm() < 1e-9 * (1 + alone[k].norm()) for k in point)
