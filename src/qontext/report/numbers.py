"""Numbers as people read them."""


def count(value: float) -> str:
    """12345 -> "12,345"."""
    return f"{value:,.0f}"


def size(value: float) -> str:
    """Bytes: "1.4 GB", "12.3 MB", "512 B"."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= scale:
            return f"{value / scale:.1f} {unit}"
    return f"{value:.0f} B"


def span(us: float) -> str:
    """Microseconds: "1.23 s", "4.56 ms", "12.3 µs"."""
    if us >= 1e6:
        return f"{us / 1e6:.2f} s"
    return f"{us / 1e3:.2f} ms" if us >= 1e3 else f"{us:.1f} µs"


def rate(per_second: float, unit: str) -> str:
    """Operations or bytes a second: "1.2 Tflop/s"."""
    for prefix, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if per_second >= scale:
            return f"{per_second / scale:.3g} {prefix}{unit}/s"
    return f"{per_second:.0f} {unit}/s"


def share(value: float) -> str:
    return f"{value:.1%}" if value < 0.0995 else f"{value:.0%}"
