// A pretend accelerator for PyTorch. Its memory is the machine's own and every operation is computed on the CPU, but its
// tensors are of another device: what forgets to move a tensor fails here as it does on a graphics card. Random numbers
// drawn on it are a stream of their own, as they are there. See __init__.py.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/native/Resize.h>
#include <ATen/native/TensorFactories.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/set_cpu_dispatch.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

using namespace at;
using Kind = std::optional<ScalarType>;
using Where = std::optional<Device>;
constexpr auto HERE = DeviceType::PrivateUse1;

// One device, one stream, nothing to wait for.
struct Guard final : c10::impl::DeviceGuardImplInterface {
  DeviceType type() const override { return HERE; }
  Device exchangeDevice(Device) const override { return getDevice(); }
  Device getDevice() const override { return {HERE, 0}; }
  void setDevice(Device) const override {}
  void uncheckedSetDevice(Device) const noexcept override {}
  Stream getStream(Device) const noexcept override { return Stream(Stream::DEFAULT, getDevice()); }
  Stream exchangeStream(Stream stream) const noexcept override { return stream; }
  DeviceIndex deviceCount() const noexcept override { return 1; }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

struct Memory final : c10::Allocator {
  DataPtr allocate(size_t n) override {
    void* memory = nullptr;
    TORCH_CHECK(n == 0 || posix_memalign(&memory, 64, n) == 0, "out of memory");
    return {memory, memory, &std::free, {HERE, 0}};
  }
  DeleterFnPtr raw_deleter() const override { return &std::free; }
  void copy_data(void* to, const void* from, size_t n) const override { default_copy_data(to, from, n); }
};
static Memory memory;
REGISTER_ALLOCATOR(HERE, &memory);

// The device's random numbers: PyTorch's generator of the CPU, with a seed of its own.
static Generator& stream() {
  static Generator generator = at::detail::createCPUGenerator(default_rng_seed_val + 1);
  return generator;
}
extern "C" void seed(uint64_t value) { stream().set_current_seed(value + 1); }

struct Hooks final : PrivateUse1HooksInterface {
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  const Generator& getDefaultGenerator(DeviceIndex) const override { return stream(); }
};
static bool hooked = (RegisterPrivateUse1HooksInterface(new Hooks), true);

// The same memory as a tensor of the CPU.
static Tensor on_cpu(const Tensor& x) {
  if (!x.defined() || x.is_cpu()) return x;
  return from_blob(x.storage().mutable_data(), x.sizes(), x.strides(), x.storage_offset(), [x](void*) {},
                   x.options().device(kCPU), Device(kCPU));
}

static Tensor make(IntArrayRef size, Kind type, std::optional<Layout>, Where, std::optional<bool>,
                   std::optional<MemoryFormat> format) {
  return at::detail::empty_generic(size, &memory, DispatchKeySet(DispatchKey::PrivateUse1), dtype_or_default(type), format);
}
static Tensor make_strided(IntArrayRef size, IntArrayRef stride, Kind type, std::optional<Layout>, Where,
                           std::optional<bool>) {
  return at::detail::empty_strided_generic(size, stride, &memory, DispatchKeySet(DispatchKey::PrivateUse1),
                                           dtype_or_default(type));
}
static Tensor copy_to(const Tensor& from, const Tensor& to, bool) {
  on_cpu(to).copy_(on_cpu(from));
  return to;
}
static Tensor copy_and_resize(const Tensor& from, const Tensor& to) {
  native::resize_(to, from.sizes(), std::nullopt);
  return copy_to(from, to, false);
}
static Scalar number(const Tensor& x) { return on_cpu(x).item(); }
static Tensor& use_storage(Tensor& x, Storage storage, int64_t offset, IntArrayRef size, IntArrayRef stride) {
  return cpu::set_(x, storage, offset, size, stride);
}
static Tensor& use_whole_storage(Tensor& x, Storage storage) {
  const int64_t n = storage.nbytes() / x.dtype().itemsize(), one = 1;
  return cpu::set_(x, storage, 0, IntArrayRef(n), IntArrayRef(one));
}

static void same_device(const std::string& name, bool cpu, bool here) {
  TORCH_CHECK(!(cpu && here), "Expected all tensors to be on the same device, but found cpu and pretend in ", name);
}

// PyTorch has no general convolution to fall back to: an extension must bring its own.
static Tensor convolve(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, SymIntArrayRef stride,
                          SymIntArrayRef padding, SymIntArrayRef dilation, bool transposed, SymIntArrayRef output_padding,
                          SymInt groups) {
  same_device("convolution", x.is_cpu() || weight.is_cpu(), true);
  std::optional<Tensor> host_bias = bias ? std::optional<Tensor>(on_cpu(*bias)) : std::nullopt;
  return convolution_symint(on_cpu(x), on_cpu(weight), host_bias, stride, padding, dilation, transposed, output_padding,
                            groups).to(x.device());
}
static std::tuple<Tensor, Tensor, Tensor> convolution_back(
    const Tensor& grad, const Tensor& x, const Tensor& weight, SymIntArrayRef stride, SymIntArrayRef padding,
    SymIntArrayRef dilation, bool transposed, SymIntArrayRef output_padding, SymInt groups, std::array<bool, 3> wanted) {
  const SymInt outputs = grad.sym_size(1);
  auto [a, b, c] = convolution_backward_symint(on_cpu(grad).contiguous(), on_cpu(x), on_cpu(weight),
                                               c10::SymIntArrayRef(&outputs, 1), stride, padding, dilation, transposed,
                                               output_padding, groups, wanted);
  auto moved = [&](const Tensor& y) { return y.defined() ? y.to(x.device()) : y; };
  return {moved(a), moved(b), moved(c)};
}

// All other operations: on the CPU, unless they mix devices. As on a card, a number (no dimension) and the index of
// x[index] may be the CPU's.
static void on_the_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto name = c10::toString(op.schema().operator_name());
  bool cpu = false, here = false;
  auto look = [&](const Tensor& x) {
    if (x.defined()) (x.is_cpu() ? cpu : here) |= !x.is_cpu() || x.dim() > 0;
  };
  for (const auto& value : torch::jit::last(*stack, op.schema().arguments().size())) {
    if (value.isTensor()) look(value.toTensor());
    if (value.isTensorList()) for (const Tensor& x : value.toTensorVector()) look(x);
  }
  if (name.rfind("aten::index", 0) != 0 && name.rfind("aten::_index_put", 0) != 0) same_device(name, cpu, here);
  static const std::vector<std::string> random = {"normal", "uniform", "bernoulli", "random", "rand", "native_dropout",
                                                  "exponential", "log_normal", "multinomial"};
  const bool draws = std::any_of(random.begin(), random.end(),
                                 [&](const std::string& kind) { return name.rfind("aten::" + kind, 0) == 0; });
  if (!draws) return native::cpu_fallback(op, stack);
  auto usual = at::detail::getDefaultCPUGenerator();
  const auto before = usual.get_state();
  usual.set_state(stream().get_state());
  native::cpu_fallback(op, stack);
  stream().set_state(usual.get_state());
  usual.set_state(before);
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", make);
  m.impl("empty_strided", make_strided);
  m.impl("_copy_from", copy_to);
  m.impl("_copy_from_and_resize", copy_and_resize);
  m.impl("_local_scalar_dense", number);
  m.impl("as_strided", TORCH_FN(native::as_strided_tensorimpl));
  m.impl("view", TORCH_FN(native::view));
  m.impl("_reshape_alias", TORCH_FN(native::_reshape_alias));
  m.impl("resize_", TORCH_FN(native::resize_));
  m.impl("set_.source_Storage", use_whole_storage);
  m.impl("set_.source_Storage_storage_offset", use_storage);
  m.impl("convolution_overrideable", convolve);
  m.impl("convolution_backward_overrideable", convolution_back);
}
TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&on_the_cpu>()); }
