"""Answers to the chapters' exercises: for each another right one, and mistakes as changes of the chapter's solution.

What every kind of answer can do wrong (nothing returned, changed arguments, NumPy, another type …) is in test_exercises.
"""

ANSWERS = {
    ("01_bags", "nine_without_seven"): (
        "def nine_without_seven(digits):\n    nines, sevens = (digits == 9).sum(), (digits == 7).sum()\n    return torch.where((nines > 0) & (sevens == 0), 1.0, 0.0)",
        [
            ("& ~(digits == 7)", "& (digits != 7)"),
            ("& ~", "| ~"),
            (".any() & ~(digits == 7).any()", ".any()"),
            ("digits == 9", "digits[:3] == 9"),
        ],
    ),
    ("01_bags", "offsets_and_means"): (
        "def offsets_and_means(x, sizes):\n    ends = torch.cumsum(sizes, 0)\n    offsets = torch.nn.functional.pad(ends, (1, 0))\n    bag = torch.searchsorted(ends, torch.arange(len(x)), right=True)\n    member = (bag == torch.arange(len(sizes))[:, None]).to(x.dtype)\n    return offsets, member @ x / sizes[:, None]",
        [
            ("sums / sizes[:, None]", "sums"),
            ("torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])", "sizes.cumsum(0)"),
            ("sums / sizes[:, None]", "torch.stack([b.mean(0) for b in x.split(sizes.tolist())])"),
            ("sums / sizes[:, None]", "sums / sizes.float().mean()"),
        ],
    ),
    ("01_bags", "negative_threshold_bag"): (
        "def negative_threshold_bag(n, generator, p=0.1):\n    digits = torch.multinomial(torch.ones(9), n, replacement=True, generator=generator)\n    none, one = 1 - p, n * p\n    if torch.rand(1, generator=generator).item() * (none + one) > none:\n        digits[int(torch.randint(0, n, (1,), generator=generator))] = 9\n    return digits",
        [
            ("torch.randint(0, 9", "torch.randint(0, 10"),
            ("n * p / (n * p + 1 - p)", "p"),
            ("n * p / (n * p + 1 - p)", "0.5"),
            ("digits[torch.randint(n, (), generator=generator)]", "digits[0]"),
            ("(n * p + 1 - p)", "(n * p + 1)"),
            ("torch.randint(0, 9", "torch.randint(1, 9"),
        ],
    ),
    ("02_pooling", "sum_pool"): (
        "def sum_pool(h, offsets):\n    total = torch.cat([h.new_zeros(1, h.shape[1]), h.cumsum(0)])\n    return total[offsets].diff(dim=0)",
        [
            (
                "return z.index_add(0, bag_index(offsets, len(h)), h)",
                "return torch.stack([b.sum(0) for b in h.split(offsets.diff().tolist())])",
            ),
            (
                "return z.index_add(0, bag_index(offsets, len(h)), h)",
                "return z.index_add(0, bag_index(offsets, len(h)), h) / offsets.diff()[:, None]",
            ),
            ("bag_index(offsets, len(h))", "bag_index(offsets, len(h)).clamp(max=1)"),
            (
                "return z.index_add(0, bag_index(offsets, len(h)), h)",
                "from samil_lite.segments import segment_sum\n    return segment_sum(h, offsets)",
            ),
        ],
    ),
    ("02_pooling", "noisy_or"): (
        "def noisy_or(s, offsets):\n    x = torch.nn.functional.softplus(s)\n    t = s.new_zeros(len(offsets) - 1).index_add(0, bag_index(offsets, len(s)), x)\n    return t + torch.log(-torch.expm1(-t))",
        [
            ("return log_yes - log_no", "return log_yes"),
            ("return log_yes - log_no", "return log_no - log_yes"),
            ("logsigmoid(-s)", "logsigmoid(s)"),
            ("torch.log(-torch.expm1(log_no))", "torch.log(1 - log_no.exp())"),
            ("return log_yes - log_no", "return log_yes.exp()"),
        ],
    ),
    ("02_pooling", "lse_pool"): (
        "def lse_pool(h, offsets, r):\n    index = bag_index(offsets, len(h))\n    top = segment_max(h, offsets).detach()\n    z = torch.zeros_like(top).index_add(0, index, torch.exp(r * (h - top[index])))\n    return (torch.log(z) - torch.log(offsets.diff()[:, None].to(h.dtype))) / r + top",
        [
            ("/ sizes).log()", ").log()"),
            (".log() / r", ".log()"),
            ("segment_max(h, offsets).detach()", "0 * segment_max(h, offsets)"),
            ("(r * (h", "((h"),
            ("top + (", "("),
        ],
    ),
    ("03_attention_pooling", "gated_scores"): (
        "def gated_scores(h, V, U, w):\n    hidden = torch.einsum('nd,md->nm', h, V).tanh() * torch.einsum('nd,md->nm', h, U).sigmoid()\n    return (hidden * w).sum(-1)",
        [
            ("torch.sigmoid(h @ U.T)", "torch.tanh(h @ U.T)"),
            ("torch.sigmoid(h @ U.T)", "torch.sigmoid(h @ V.T)"),
            (" * torch.sigmoid", " + torch.sigmoid"),
            ("@ w", "@ torch.ones_like(w)"),
            (
                "return (torch.tanh(h @ V.T) * torch.sigmoid(h @ U.T)) @ w",
                "return torch.stack([(torch.tanh(V @ x) * torch.sigmoid(U @ x)) @ w for x in h])",
            ),
        ],
    ),
    ("03_attention_pooling", "pool_with_temperature"): (
        "def pool_with_temperature(h, V, w, tau):\n    e = (w @ torch.tanh(V @ h.T)) / tau\n    p = (e - e.max()).exp()\n    return (p[:, None] * h).sum(0) / p.sum()",
        [
            ("/ tau", "* tau"),
            (" / tau", ""),
            ("@ w / tau", "@ (w / tau).tanh()"),
            ("torch.softmax(e, dim=0)", "torch.sigmoid(e)"),
            ("@ h  #", "@ h / len(h)  #"),
        ],
    ),
    ("03_attention_pooling", "ragged_softmax"): (
        "def ragged_softmax(e, offsets):\n    index = torch.repeat_interleave(torch.arange(len(offsets) - 1), offsets.diff())\n    top = torch.zeros(len(offsets) - 1).scatter_reduce(0, index, e.detach(), 'amax', include_self=False)\n    p = torch.exp(e - top[index])\n    return p / torch.zeros(len(offsets) - 1).index_add(0, index, p)[index]",
        [
            ("p / total[index]", "p / p.sum()"),
            ("(e - largest[index]).exp()", "e.exp()"),
            ("(e - largest[index]).exp()", "(e - e.detach().max()).exp()"),
            ("p / total[index]", "p"),
            ("p / total[index]", "torch.cat([x.softmax(0) for x in e.split(offsets.diff().tolist())])"),
            (
                "    # (N,)\n",
                "    from samil_lite.segments import segment_softmax\n    return segment_softmax(e, offsets)\n",
            ),
        ],
    ),
    ("04_limits", "logit_range"): (
        "def logit_range(model, bag):\n    logits = [sl.predict(model, sl.Bags.from_list([x[None]])).logits.item() for x in bag.instances]\n    return min(logits), max(logits)",
        [
            ("s.min(), s.max()", "s.max(), s.min()"),
            ("s.min(), s.max()", "s[0], s[-1]"),
            ("s.min(), s.max()", "s.min(), s.mean()"),
            ("s.min(), s.max()", "s.min(), s.min()"),
            ("bag.instances.split(1)", "bag.instances.split(2)"),
        ],
    ),
    ("04_limits", "twin"): (
        "def twin(h, pool):\n    _, a = pool(h, torch.tensor([0, len(h)]))\n    delta = torch.linalg.svd(pool.V.weight).Vh[-1]\n    change = torch.zeros_like(h)\n    change[0], change[-1] = delta / a[0], -delta / a[-1]\n    return h + change",
        [
            ("    other[1] -= delta / a[1]  # … and takes it away again\n", ""),
            ("delta / a[0]", "delta"),
            ("other = h.clone()", "other = h"),
            ("return other", "return h.clone()"),
            ("return other", "return h.flip(0)"),
            (".Vh[-1]", ".Vh[0]"),
            ("return other", "return torch.cat([h, h])"),
        ],
    ),
    ("04_limits", "sigmoid_sum"): (
        "def sigmoid_sum(h, V, w):\n    a = 1 / (1 + torch.exp(-(torch.tanh(V @ h.T).T @ w)))\n    return (a[:, None] * h).sum(0)",
        [
            ("return a @ h", "return a @ h / a.sum()"),
            ("return a @ h", "return a @ h / len(h)"),
            ("torch.sigmoid(", "torch.exp("),
            ("torch.tanh(h @ V.T) @ w", "h @ V.T @ w"),
            ("torch.sigmoid(torch.tanh(h @ V.T) @ w)", "torch.tanh(torch.sigmoid(h @ V.T) @ w)"),
        ],
    ),
    ("05_self_attention", "masked_weights"): (
        "def masked_weights(s, sizes):\n    key = (torch.arange(s.shape[2])[None] < sizes[:, None])[:, None]\n    p = torch.exp(s - s.amax(-1, keepdim=True)) * key\n    return p / p.sum(-1, keepdim=True)",
        [
            ("~is_key[:, None, :], -torch.inf", "~is_key[:, None, :], 0"),
            ("is_key[:, None, :]", "is_key[:, :, None]"),
            (".softmax(-1)", ".softmax(1)"),
            ("~is_key", "is_key"),
            ("s.masked_fill(~is_key[:, None, :], -torch.inf).softmax(-1)", "s.softmax(-1) * is_key[:, None, :]"),
            ("<", "<="),
        ],
    ),
    ("05_self_attention", "backward"): (
        "def backward(beta, v, gamma, g):\n    grad_beta = gamma * g @ v.T\n    J = torch.diag_embed(beta) - beta[:, :, None] * beta[:, None, :]\n    grad_s = torch.einsum('jik,jk->ji', J, grad_beta)\n    return torch.sum(g * (beta @ v)), gamma * (beta.T @ g), grad_s",
        [
            ("gamma * beta.T @ g", "beta.T @ g"),
            ("gamma * beta.T @ g", "gamma * beta @ g"),
            (" - (g * o).sum(1, keepdim=True)", ""),
            ("(g * o).sum(1, keepdim=True)", "(g * o).mean(1, keepdim=True)"),
            ("return (g * o).sum()", "return gamma * (g * o).sum()"),
            ("grad_s = gamma * beta", "grad_s = gamma"),
        ],
    ),
    ("05_self_attention", "streamed"): (
        "def streamed(q, k, v, size=3):\n    out, lse = 0, q.new_full((len(q), 1), -torch.inf)\n    for start in range(0, len(k), size):\n        s = q @ k[start:start + size].T\n        new = torch.logaddexp(lse, s.logsumexp(1, keepdim=True))\n        out = out * (lse - new).exp() + (s - new).exp() @ v[start:start + size]\n        lse = new\n    return out",
        [
            ("total * rescale", "total"),
            ("weighted * rescale", "weighted"),
            ("return weighted / total", "return weighted"),
            ("    largest = q.new_full", "    return (q @ k.T).softmax(1) @ v\n    largest = q.new_full"),
            ("(s - new).exp(), (largest - new).exp()", "s.exp(), 1"),
            ("largest = new", "largest = largest.clamp(min=0)"),
        ],
    ),
    ("06_sa_abmilp", "indirect"): (
        "def indirect(a, beta):\n    return a @ torch.block_diag(*beta)",
        [
            ("a_b @ beta_b", "beta_b @ a_b"),
            ("a_b @ beta_b", "a_b @ beta_b / len(a_b)"),
            ("a_b @ beta_b", "a_b * beta_b.diagonal()"),
            ("a_b @ beta_b", "a_b"),
            ("[len(x) for x in beta]", "[4, 1, 4]"),
        ],
    ),
    ("06_sa_abmilp", "sharp_enough"): (
        "def sharp_enough(n):\n    gap = 3.5 + 1.01 * math.log(n)\n    return gap, 1.4 * gap",
        [
            ("return gap, gap / math.tanh(1)", "return 5.0, 10.0"),
            ("return gap, gap / math.tanh(1)", "return 100.0, 200.0"),
            ("return gap, gap / math.tanh(1)", "return 1000.0, 1000.0"),
            ("return gap, gap / math.tanh(1)", "return float(n), float(n)"),
            ("math.log(n)", "math.log(math.log(n))"),
            ("return gap, gap / math.tanh(1)", "return gap / 2, gap"),
            ("return gap, gap / math.tanh(1)", "return gap, gap / 3"),
        ],
    ),
    ("06_sa_abmilp", "one_kind_only"): (
        "def one_kind_only():\n    W_q, W_k = torch.tensor([[8.0, 0.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]])\n    W_v = torch.tensor([[0.0, 0, 0], [0, 0, 0], [0, 1, 0]])\n    return W_q, W_k, W_v, torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([60.0]), torch.tensor([1.0, 2.0, -1.2]), -0.5",
        [
            ("W_v[2, 1] = 1", "W_v[1, 2] = 1"),
            ("W_v[2, 1] = 1", "W_v[2, 0] = 1"),
            ("-1.0]), -0.5", "1.0]), -0.5"),
            ("-1.0]), -0.5", "-1.0]), 0.5"),
            ("[5.0, 0.0, 0.0]", "[0.5, 0.0, 0.0]"),
            ("torch.tensor([40.0])", "torch.tensor([1.0])"),
            ("W_q, W_k, W_v, V, w, c, c_0\n", "W_k, W_q, W_v, V, w, c, c_0\n"),
        ],
    ),
    ("07_rbf", "largest_possible"): (
        "def largest_possible(n, low, high):\n    import math\n    shifted = math.exp(low - high)\n    return 1 / (shifted * (n - 1) + 1)",
        [
            ("(n - 1)", "n"),
            ("low - high", "high - low"),
            ("low - high", "-1"),
            ("low - high", "low"),
            ("1 / (1 +", "2 / (1 +"),
        ],
    ),
    ("07_rbf", "squared_distances"): (
        "def squared_distances(q, k):\n    centre = q.detach().mean(0)\n    a, b = q - centre, k - centre\n    return torch.relu((a * a).sum(-1, keepdim=True) + (b * b).sum(-1) - 2 * torch.mm(a, b.T))",
        [
            ("    mean = k.mean(0)  # (d,)\n    q, k = q - mean, k - mean\n", ""),
            (".clamp_min(0)", ""),
            ("2 * q", "q"),
            ("    mean = k", "    return (q[:, None] - k[None]).square().sum(-1)\n    mean = k"),
            ("return (squares - 2 * q @ k.T).clamp_min(0)", "return (squares - 2 * q @ k.T).clamp_min(0).sqrt()"),
        ],
    ),
    ("07_rbf", "sharpened"): (
        "def sharpened(q, k, share=0.9, alpha=1.0):\n    tau = torch.tensor(share / (1 - share)).log() + torch.tensor(len(k) - 1.0).log()\n    e = tau * (-alpha * (q[:, None] - k).square().sum(-1)).exp()\n    return torch.softmax(e, 1)",
        [
            ("share * (n - 1) / (1 - share)", "0.9 * (n - 1) / 0.1"),
            ("share * (n - 1) / (1 - share)", "share * n / (1 - share)"),
            ("-alpha * by_difference", "-by_difference"),
            (".softmax(-1)", ".softmax(0)"),
            ("share * (n - 1) / (1 - share)", "9.0 * share / (1 - share)"),
            ("share * (n - 1) / (1 - share)).log()", "share * (n - 1) / (1 - share))"),
        ],
    ),
    ("08_inverse_quadratic", "distance_for"): (
        "def distance_for(value, alpha):\n    return ((1 - value) / (alpha * value)) ** 0.5",
        [
            (" ** 0.5", ""),
            ("/ alpha", "* alpha"),
            ("1 / value - 1", "1 / value"),
            ("return (", "return -("),
            ("(1 / value - 1) / alpha", "(1 / value - 1)"),
            ("1 / value - 1", "1 - value"),
        ],
    ),
    ("08_inverse_quadratic", "cauchy_attention"): (
        "def cauchy_attention(q, k, v):\n    w = (1 + torch.stack([(q_j - k).square().sum(1) for q_j in q])).reciprocal()\n    return (w[..., None] * v).sum(1) / w.sum(1)[:, None]",
        [
            ("kappa.sum(1, keepdim=True)", "len(k)"),
            ("kappa.sum(1, keepdim=True)", "kappa.sum(0)[:, None]"),
            ("1 / (1 + squared_distances(q, k))", "1 / (1 + squared_distances(q, k).sqrt())"),
            ("return kappa @ v / kappa.sum(1, keepdim=True)", "return kappa.softmax(1) @ v"),
            ("return kappa @ v / kappa.sum(1, keepdim=True)", "return kappa.log().softmax(1) @ v"),
            ("kappa @ v /", "kappa.T @ v /"),
        ],
    ),
    ("08_inverse_quadratic", "strongest_pull"): (
        "class RationalQuadratic(sl.kernels.Kernel):\n    statistic, has_alpha = 'squared_distance', True\n\n    def __init__(self, m):\n        self.m = m\n\n    def phi(self, t, alpha):\n        return (-self.m * torch.log1p(t * alpha / self.m)).exp()\n\n\ndef strongest_pull(m, alpha):\n    return math.sqrt(1 / (alpha * (2 + 1 / m)))",
        [
            ("torch.exp(-self.m * torch.log1p(alpha * t / self.m))", "(1 + alpha * t / self.m) ** -self.m"),
            ("torch.exp(-self.m *", "torch.exp(-"),
            ("alpha * t / self.m", "alpha * t"),
            ("2 * m + 1", "2 * m"),
            ("2 * m + 1", "m + 1"),
            (" ** 0.5", ""),
            ("(m / (alpha", "(m / (1"),
        ],
    ),
    ("09_laplace", "attend_at"): (
        "def attend_at(q, k, v, tau):\n    scale = 1 / tau\n    return sl.kernel_attention(scale * q, scale * k, v, kernel='laplace')",
        [
            ("q / tau, k / tau", "q / tau, k"),
            ("q / tau, k / tau", "q * tau, k * tau"),
            ("q / tau, k / tau, v", "q / tau, k / tau, v / tau"),
            ('"laplace"', '"rbf"'),
            (
                'return sl.kernel_attention(q / tau, k / tau, v, "laplace")',
                "return (laplace_scores(q, k) / tau).softmax(-1) @ v",
            ),
            ("q / tau, k / tau", "q / 0.7, k / 0.7"),
            ("k / tau", "k.detach() / tau"),
        ],
    ),
    ("09_laplace", "smooth_scores"): (
        "def smooth_scores(q, k, eps):\n    x = q.unsqueeze(1) - k\n    return torch.sum(eps - torch.sqrt(x * x + eps * eps), -1)",
        [
            ("eps**2", "eps"),
            (" - eps)", ")"),
            ("k[None]", "k.detach()[None]"),
            ("return -", "return "),
            ("- eps).sum(-1)", "- eps)[..., :4].sum(-1)"),
            ("- eps).sum(-1)", "- eps).mean(-1)"),
            ("- eps).sum(-1)", "- eps)[..., 0] * 4"),
        ],
    ),
    ("09_laplace", "laplace_in_blocks"): (
        "from torch.utils.checkpoint import checkpoint\n\n\ndef laplace_in_blocks(q, k, v, rows):\n    def block(part, k, v):\n        s = -(part[:, None] - k[None]).abs().sum(-1)\n        return torch.softmax(s, 1) @ v\n\n    return torch.cat([checkpoint(block, q[i:i + rows], k, v, use_reentrant=False) for i in range(0, len(q), rows)])",
        [
            ("q.split(rows)", "q.split(len(q))"),
            ("q.split(rows)", "q.split(150)"),
            ("checkpoint(block, q_block, k, v, use_reentrant=False)", "block(q_block, k, v)"),
            ("q.split(rows)", "q[:13].split(rows)"),
            (".softmax(-1)", ".softmax(0)"),
            ("k, v, use_reentrant", "k.detach(), v, use_reentrant"),
            ("torch.cat(parts)", "torch.cat(parts[:-1])"),
        ],
    ),
    ("10_module", "module_1d"): (
        "def module_1d(k, q):\n    same = (torch.sign(k) == torch.sign(q)).to(k.dtype)\n    return -2 * same * torch.minimum(k.abs(), q.abs())",
        [
            ("-2 *", "2 *"),
            ("-2 *", "-1 *"),
            ("torch.minimum", "torch.maximum"),
            ("k * q > 0", "k > 0"),
            ("k * q > 0", "k * q < 0"),
            (".abs(), q.abs())", ", q)"),
        ],
    ),
    ("10_module", "largest_weight"): (
        "def largest_weight(length, n, alpha):\n    return 1 / (1 + (n - 1) * np.exp(-2 * length**alpha))",
        [
            ("2 * length", "length"),
            ("length**alpha", "length"),
            ("n - 1", "n"),
            ("n - 1", "11"),
            ("length**alpha", "length * alpha"),
            ("return factor / (factor + n - 1)", "return 1.0"),
        ],
    ),
    ("10_module", "covariance_attention"): (
        "def covariance_attention(q, k, v, alpha):\n    d = torch.stack([power((x - k).square().sum(-1), alpha / 2) for x in q])\n    score = 0.5 * (power(k.square().sum(-1), alpha / 2)[None] - d)\n    return torch.softmax(score, 1) @ v",
        [
            ("(lengths - distances) / 2", "lengths - distances"),
            ("(lengths - distances) / 2", "-distances / 2"),
            ("lengths - distances", "distances - lengths"),
            ("alpha / 2)  # (n,)", "alpha)  # (n,)"),
            (
                "power((q[:, None] - k[None]).square().sum(-1), alpha / 2)",
                "((q[:, None] - k[None]).square().sum(-1)) ** (alpha / 2)",
            ),
            (".softmax(-1)", ".softmax(0)"),
        ],
    ),
    ("11_choosing_a_kernel", "student_interval"): (
        "def student_interval(a, b):\n    d = [x - y for x, y in zip(a, b)]\n    n, m = len(d), sum(d) / len(d)\n    se = (sum((x - m) ** 2 for x in d) / (n - 1) / n) ** 0.5\n    t = stats.t.ppf(0.975, n - 1)\n    return m, m - t * se, m + t * se",
        [
            ("0.975", "0.95"),
            ("ddof=1", "ddof=0"),
            ("n - 1)", "n)"),
            ("stats.t.ppf(0.975, n - 1)", "1.96"),
            ("stats.t.ppf(0.975, n - 1)", "2.776"),
            (" / np.sqrt(n)", ""),
            ("np.asarray(a) - np.asarray(b)", "np.asarray(b) - np.asarray(a)"),
        ],
    ),
    ("11_choosing_a_kernel", "choose"): (
        "def choose(table):\n    mean = table.pivot_table(index='model', values=['validation_loss', 'auc'], aggfunc='mean')\n    best = mean.sort_values('validation_loss').iloc[0]\n    return best.name, float(best['auc'])",
        [
            ('means["validation_loss"].idxmin()', 'means["auc"].idxmax()'),
            ("idxmin", "idxmax"),
            ('means["validation_loss"].idxmin()', 'table.loc[table["validation_loss"].idxmin(), "model"]'),
            (".mean()", ".sum()"),
            ('return name, means.loc[name, "auc"]', 'return means.loc[name, "auc"], name'),
            (".mean()", ".max()"),
        ],
    ),
    ("11_choosing_a_kernel", "power"): (
        "def power(n, delta, sigma, experiments=4000):\n    rng, hits = np.random.default_rng(7), 0\n    for _ in range(experiments):\n        x = rng.normal(delta, sigma, n)\n        hits += x.mean() > stats.t.ppf(0.975, n - 1) * x.std(ddof=1) / n**0.5\n    return hits / experiments",
        [
            ("0.975", "0.8"),
            (" / np.sqrt(n)", ""),
            ("- half > 0", "+ half > 0"),
            ("- half > 0", "> 0"),
            ("normal(delta, sigma", "normal(delta, 0.02"),
            ("(differences.mean(1) - half > 0)", "(abs(differences.mean(1)) - half > 0)"),
        ],
    ),
    ("12_fast_attention", "merge"): (
        "def merge(o1, lse1, o2, lse2):\n    both = torch.logaddexp(lse1, lse2)\n    return (lse1 - both).exp()[:, None] * o1 + (lse2 - both).exp()[:, None] * o2",
        [
            ("lse1 - lse2", "lse2 - lse1"),
            ("torch.sigmoid(lse1 - lse2)[:, None]", "0.5"),
            ("torch.sigmoid(lse1 - lse2)", "(lse1.exp() / (lse1.exp() + lse2.exp()))"),
            ("torch.sigmoid(lse1 - lse2)", "(lse1 / (lse1 + lse2))"),
            ("(1 - share) * o2", "o2"),
            ("lse1 - lse2", "(lse1 - lse2).detach()"),
        ],
    ),
    ("12_fast_attention", "largest_weight"): (
        "def largest_weight(q, k, kernel, alpha, size):\n    lse, top = q.new_full((len(q),), -torch.inf), q.new_full((len(q),), -torch.inf)\n    for start in range(0, len(k), size):\n        s = score(q, k[start:start + size], kernel, alpha)\n        lse, top = torch.logaddexp(lse, s.logsumexp(1)), torch.maximum(top, s.amax(1))\n    return (top - lse).exp()",
        [
            ("(m - new).exp() * total", "total"),
            ("return 1 / total", "return 1 / (total + 1)"),
            ("k.split(size)", "k.split(len(k))"),
            ("s.amax(1)", "s.amin(1)"),
            ("return 1 / total", "return m.exp() / total"),
            ("    m, total =", "    return score(q, k, kernel, alpha).softmax(1).amax(1)\n    m, total ="),
        ],
    ),
    ("12_fast_attention", "backward"): (
        (
            "            ds = beta * (do[r] @ v.T - (do[r] * o[r]).sum(1, keepdim=True))  # (r, n)\n",
            "            d_beta = do[r] @ v.T\n            ds = beta * d_beta - beta * (beta * d_beta).sum(1)[:, None]\n",
        ),
        [
            ("- lse[r, None]).exp()", ").exp()"),
            (" - (do[r] * o[r]).sum(1, keepdim=True)", ""),
            ("dk += ds.T @ q[r]", "dk = ds.T @ q[r]"),
            ("dv += beta.T @ do[r]", "dv += beta.T @ o[r]"),
            ("return dq, dk, dv", "return dk, dq, dv"),
            ("return dq, dk, dv", "return dq, dk, None"),
            ("ds = beta * (", "ds = ("),
            ("for start in range(0, len(q), SIZE)", "for start in range(0, len(q) - SIZE + 1, SIZE)"),
            ("slice(start, start + SIZE)", "slice(0, len(q)) if start == 0 else slice(0, 0)"),
        ],
    ),
    ("13_breast", "shuffled"): (
        "def shuffled(patches, generator):\n    order = torch.rand(len(patches), generator=generator).argsort()\n    return patches.index_select(0, order)",
        [
            ("generator=generator)", "generator=torch.Generator().manual_seed(0))"),
            (
                "torch.randperm(len(patches), generator=generator)",
                "torch.randint(len(patches), (len(patches),), generator=generator)",
            ),
            ("return patches[torch.randperm(len(patches), generator=generator)]", "return patches.flip(0)"),
            (
                "return patches[torch.randperm(len(patches), generator=generator)]",
                "return patches.roll(int(torch.randint(len(patches), (), generator=generator)), 0)",
            ),
            (", generator=generator)", ")"),
            ("torch.randperm(len(patches)", "torch.randperm(len(patches) - 1"),
        ],
    ),
    ("13_breast", "from_siblings"): (
        "def from_siblings(labels, slides):\n    shares = []\n    for i, slide in enumerate(slides):\n        others = [float(labels[j]) for j, s in enumerate(slides) if s == slide and j != i]\n        shares.append(sum(others) / len(others))\n    return torch.tensor(shares)",
        [
            ("        .fill_diagonal_(0)\n", ""),
            ("/ same.sum(1)", "/ len(labels)"),
            ("a == b", "a != b"),
            ("/ same.sum(1)", ""),
            ("same @ labels.double()", "same @ (1 - labels.double())"),
        ],
    ),
    ("13_breast", "error_by_slide"): (
        "def error_by_slide(right, slides, draws=4000):\n    names, rng = sorted(set(list(slides))), np.random.default_rng(3)\n    parts = [np.asarray(right)[np.asarray(slides) == s] for s in names]\n    means = [np.concatenate([parts[i] for i in rng.integers(len(parts), size=len(parts))]).mean() for _ in range(draws)]\n    return float(np.std(means))",
        [
            ("(hits[drawn].sum(1) / sizes[drawn].sum(1)).std()", "(hits[drawn] / sizes[drawn]).mean(1).std()"),
            (".std()", ".var()"),
            ("np.unique(slides, return_inverse=True)[1]", "np.arange(len(slides))"),
            (".std()", ".std() / np.sqrt(len(sizes))"),
            ("size=(draws, len(sizes))", "size=(draws, len(right))"),
            ("sizes[drawn].sum(1)", "sizes.sum()"),
        ],
    ),
    ("14_colon", "chance_precision"): (
        "def chance_precision(key, offsets):\n    n = offsets.diff()\n    total = torch.cat([torch.zeros(1), key.float().cumsum(0)])\n    return total[offsets].diff() / n",
        [
            ("k.float().mean()", "k.float().sum()"),
            ("k.float().mean()", "key.float().mean()"),
            ("k.float().mean()", "torch.tensor(0.5)"),
            ("k.float().mean()", "(~k).float().mean()"),
            ("offsets.diff()", "offsets.diff().flip(0)"),
        ],
    ),
    ("14_colon", "by_distance"): (
        "def by_distance(beta, places, key, edges):\n    d = (places[:, None] - places).square().sum(-1).sqrt()\n    both = key[:, None] & key & ~torch.eye(len(key)).bool()\n    masks = [both & (d > a) & (d <= b) for a, b in pairwise(edges)]\n    return torch.stack([len(key) * (beta * m).sum() for m in masks]), torch.stack([m.sum() for m in masks])",
        [
            ("key[:, None] & key &", "key[:, None] &"),
            ("distance <= high", "distance <= high + 4"),
            ("(distance > low) & (distance <= high)", "(distance >= low) & (distance < high)"),
            ("len(key) * beta", "beta"),
            ("beta[chosen].sum()", "beta[chosen].mean()"),
            ("chosen.sum()", "key.sum()"),
        ],
    ),
    ("14_colon", "taken_out"): (
        "def taken_out(model, bag):\n    h, full = bag.instances, sl.predict(model, bag).logits[0]\n    parts = [torch.cat([h[:i], h[i + 1:]]) for i in range(len(h))]\n    return torch.stack([full - sl.predict(model, sl.Bags.from_list([x])).logits[0] for x in parts])",
        [
            ("torch.arange(n) != i", "torch.arange(n) == i"),
            (
                "        - sl.predict(model, sl.Bags.from_list(rest)).logits",
                "        + sl.predict(model, sl.Bags.from_list(rest)).logits",
            ),
            (
                "        sl.predict(model, bag).logits\n        - sl",
                "        0 * sl.predict(model, bag).logits\n        - sl",
            ),
            ("        sl.predict(model, bag).logits\n        - sl", "        sl"),
            ("torch.arange(n) != i", "torch.arange(n) != 0"),
        ],
    ),
    ("15_fungi", "confusion"): (
        "def confusion(labels, called, n_classes):\n    m = torch.zeros(n_classes, n_classes).long()\n    for a, b in zip(labels.tolist(), called.tolist()):\n        m[a, b] += 1\n    return m",
        [
            ("labels * n_classes + called", "called * n_classes + labels"),
            ("minlength=n_classes**2)", "minlength=81)"),
            (".view(n_classes, n_classes)", ""),
            ("labels * n_classes + called", "labels * n_classes + labels"),
            (".view(n_classes, n_classes)", ".view(n_classes, n_classes) / len(labels)"),
        ],
    ),
    ("15_fungi", "never_trained"): (
        "def never_trained(labels, fold):\n    out = set()\n    for c in set(labels.tolist()):\n        if len({f for l, f in zip(labels.tolist(), fold.tolist()) if l == c}) == 1:\n            out.add(c)\n    return out",
        [
            ("== 1}", "> 1}"),
            ("fold[labels == c]", "labels[fold == c]"),
            ("return {int(c) for", "return {c for"),
            ("== 1}", "<= 2}"),
            ("labels.unique()", "labels.unique()[1:]"),
        ],
    ),
    ("15_fungi", "embed"): (
        "def embed(network, x, chunk=50):\n    training = {name: part.training for name, part in network.named_modules()}\n    network.eval()\n    with torch.inference_mode():\n        h = [network(x[i:i + chunk]) for i in range(0, len(x), chunk)]\n    for name, part in network.named_modules():\n        part.training = training[name]\n    return torch.cat(h).clone()",
        [
            ("    network.eval()\n", ""),
            ("        part.training = mode\n", "        pass\n"),
            ("    for part, mode in modes:\n        part.training = mode\n", "    network.train()\n"),
            ("with torch.no_grad():", "if True:"),
            ("x.split(chunk)", "x.split(len(x))"),
            ("x.split(chunk)", "x.split(50)[:1]"),
            (
                "torch.cat([network(some) for some in x.split(chunk)])",
                "torch.cat([network(some - some.mean(0)) for some in x.split(chunk)])",
            ),
        ],
    ),
    ("16_retina", "n_patches"): (
        "def n_patches(width, height, size, stride):\n    return len(range(0, width - size + 1, stride)) * len(range(0, height - size + 1, stride))",
        [
            (" // stride + 1) * ((height", " // stride) * ((height"),
            ("(width - size)", "width"),
            ("(height - size) // stride", "(height - size) // size"),
            (" // stride", " / stride"),
            ("+ 1) * (", "+ 1) + ("),
            ("(height - size)", "(width - size)"),
        ],
    ),
    ("16_retina", "threshold_for_recall"): (
        "def threshold_for_recall(logits, labels, r):\n    ill = logits[labels == 1]\n    for u in sorted(logits.tolist(), reverse=True):\n        if (ill >= u).double().mean() >= r - 1e-9:\n            return u",
        [
            ("labels == 1", "labels == 0"),
            ("descending=True", "descending=False"),
            ("needed - 1", "needed - 2"),
            ("ill[needed - 1]", "ill[min(needed, len(ill) - 1)]"),
            ("np.ceil", "np.floor"),
            ("ill[needed - 1].item()", "logits.quantile(1 - r).item()"),
        ],
    ),
    ("16_retina", "paired_difference"): (
        "def paired_difference(right_a, right_b):\n    n = len(right_a)\n    b, c = int((right_a & ~right_b).sum()), int((~right_a & right_b).sum())\n    delta = (b - c) / n\n    half = 1.96 * (((b + c) / n - delta**2) / n) ** 0.5\n    return delta, delta - half, delta + half",
        [
            ("1.96 *", "1.0 *"),
            ("(d - delta**2)", "(d + 0.2)"),
            ("/ len(x)).sqrt()", ").sqrt()"),
            ("right_a.double() - right_b.double()", "right_b.double() - right_a.double()"),
            ("(delta - half).item(), (delta + half).item()", "(delta + half).item(), (delta - half).item()"),
            ("return delta.item(), ", "return "),
            ("(d - delta**2)", "(right_a.double().var() + right_b.double().var())"),
        ],
    ),
    ("17_auditing", "largest_fall"): (
        "def largest_fall(f, x, extra):\n    low = min(float(f(torch.cat([x, extra[i : i + 1]]))) for i in range(len(extra)))\n    return max(0.0, float(f(x)) - low)",
        [
            ("max(0.0, max(", "min(0.0, max("),
            ("f(x) - f(torch.cat", "f(torch.cat"),
            ("torch.cat([x, row[None]])", "torch.cat([row[None], x])"),
            ("for row in extra", "for row in extra[:1]"),
            ("max(float(fall) for fall in falls)", "sum(float(fall) for fall in falls)"),
            ("max(0.0, max(float(fall) for fall in falls))", "max(float(fall) for fall in falls)"),
            ("torch.cat([x, row[None]])", "row[None]"),
        ],
    ),
    ("17_auditing", "calibration"): (
        "def calibration(p, y, n_bins=10):\n    member = (torch.arange(n_bins)[:, None] == (p * n_bins).floor().clamp(max=n_bins - 1)).to(p.dtype)\n    return (member @ (y - p)).abs().sum() / len(p)",
        [
            ("apart.abs().sum()", "apart.sum().abs()"),
            ("/ len(p)", "/ n_bins"),
            ("y.to(p.dtype) - p", "p"),
            ("n_bins=10", "n_bins=5"),
            ("apart.abs()", "apart.square()"),
            ("(p * n_bins).long()", "(p * n_bins).round().long()"),
        ],
    ),
    ("17_auditing", "deletion_area"): (
        "def deletion_area(f, x, scores):\n    order = scores.sort(descending=True).indices\n    return sum(f(x[order[i:]]) for i in range(len(order))) / len(order)",
        [
            ("scores.argsort()", "scores.argsort(descending=True)"),
            (".mean()", ".sum()"),
            ("range(len(x))", "range(1, len(x))"),
            ("x[scores.argsort()]", "x"),
            ("len(x) - i", "len(x)"),
            (".mean()", ".max()"),
        ],
    ),
    ("18_your_own_bags", "majority_accuracy"): (
        "def majority_accuracy(train_labels, test_labels):\n    counts = {c: (train_labels == c).sum().item() for c in set(train_labels.tolist())}\n    best = max(counts, key=counts.get)\n    return sum(y == best for y in test_labels.tolist()) / len(test_labels)",
        [
            ("train_labels.bincount()", "test_labels.bincount()"),
            ("argmax()", "argmin()"),
            ("train_labels.bincount().argmax()", "(train_labels.float().mean() > 0.5).long()"),
            (".mean().item()", ".sum().item()"),
            ("test_labels == majority", "test_labels != majority"),
            ("(test_labels == majority)", "(train_labels == majority)"),
        ],
    ),
    ("18_your_own_bags", "divided_patients"): (
        "def divided_patients(fold, patients, number):\n    found = {}\n    for p, f in zip(patients, fold.tolist()):\n        found.setdefault(p, set()).add(f)\n    return {p for p, folds in found.items() if number in folds and len(folds) > 1}",
        [
            ("inside & outside", "inside"),
            ("inside & outside", "inside | outside"),
            ("inside & outside", "outside - inside"),
            ("if f != number", "if f > number"),
            ("return inside & outside", "return len(inside & outside)"),
            ("f == number", "f == 0"),
        ],
    ),
    ("18_your_own_bags", "recall_at_precision"): (
        "def recall_at_precision(logits, labels, p):\n    found = [0.0]\n    for u in logits.unique().tolist():\n        called = labels[logits >= u]\n        if called.double().mean().item() >= p:\n            found.append(called.sum().item() / labels.sum().item())\n    return max(found)",
        [
            (">= p", "> p"),
            ("best = max(best, hits / (labels == 1).sum().item())", "best = hits / (labels == 1).sum().item()"),
            ("hits / (labels == 1).sum().item())", "hits / called.sum().item())"),
            ("hits / (labels == 1).sum().item())", "hits / len(labels))"),
            ("hits / called.sum().item() >= p", "(called == (labels == 1)).float().mean().item() >= p"),
            ("best = 0.0", "best = 0.5"),
            ("logits >= threshold", "logits <= threshold"),
        ],
    ),
    ("19_whole_slides", "count_tiles"): (
        "def count_tiles(width, height, own, size, mpp):\n    side = size * mpp / own\n    return len([x for x in range(1, width) if x * side <= width]) * len([y for y in range(1, height) if y * side <= height])",
        [
            ("size * mpp / own", "size * own / mpp"),
            ("size * mpp / own", "size"),
            ("int(width // side) *", "int(width // side) +"),
            ("int(height // side)", "round(height / side)"),
            ("int(width // side) * int(height // side)", "int(width * height // side**2)"),
        ],
    ),
    ("19_whole_slides", "value_at"): (
        "def value_at(point, corners, values, side):\n    found = [v for (x, y), v in zip(corners.tolist(), values.tolist()) if 0 <= point[0] - x < side and 0 <= point[1] - y < side]\n    return sum(found) / len(found) if found else None",
        [
            ("values[inside].mean()", "values[inside].sum()"),
            ("values[inside].mean()", "values[inside].max()"),
            (".all(1)", ".any(1)"),
            ("point < corners + side", "point <= corners + side"),
            ("corners <= point", "corners < point"),
            ("if inside.any() else None", "if inside.any() else 0.0"),
        ],
    ),
    ("19_whole_slides", "otsu"): (
        "def otsu(x):\n    levels = x.unique()\n    lower = x <= levels[:-1, None]\n    n = lower.sum(1)\n    low, high = (x * lower).sum(1) / n, (x * ~lower).sum(1) / (len(x) - n)\n    return levels[(n * (len(x) - n) * (low - high) ** 2).argmax()].item()",
        [
            ("len(low) * len(high) * (", "("),
            (" ** 2", ""),
            ("len(low) * len(high)", "len(low)"),
            ("between > best", "between < best or best < 0"),
            ("t.item()", "(low.mean() + high.mean()).item() / 2"),
            ("x <= t], x[x > t]", "x < t], x[x >= t]"),
        ],
    ),
}
