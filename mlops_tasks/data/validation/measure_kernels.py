"""Compiled passes over the bars of a panel, one instrument after the other.

`chain` (int32) lists the rows that can be compared with their neighbours (a key, a positive close and factor), by
instrument and day; `codes` (int32) is the instrument of each row. All other arrays have one value a row, in the
frame's own order, so no column is copied or sorted. Moves are natural logarithms.
"""

import numpy as np
from numba import types
from numpy.typing import NDArray

from mlops_tasks.kernels import inner, kernel

Floats = NDArray[np.float64]
SmallFloats = NDArray[np.float32]
Integers = NDArray[np.int32]
SmallIntegers = NDArray[np.int16]

_I4, _F4 = types.int32[::1], types.float32[::1]
_FIELD = types.Array(types.float64, 1, "C", readonly=True)
_INT, _FLOAT = types.int64, types.float64
_SESSION_TABLES = types.Tuple((types.int32[:, ::1], types.int8[:, ::1], _I4))
_SESSION_MEASURES = types.Tuple((_I4, _I4, _I4, types.float64[::1], types.float64[::1]))

_SAME_FACTOR = 1e-6
"""Relative change of the factor below which it is the same."""
_DAY_NS, _NOT_A_TIME = 86_400_000_000_000, -(2**63)

BAR, NO_TRADE, BELOW_ZERO = 0, 1, 2
"""What `classify_rows` says about a row."""


@kernel(types.UniTuple(_FIELD, 5), types.int8[::1])
def classify_rows(bars: tuple[Floats, Floats, Floats, Floats, Floats], kinds: NDArray[np.int8]) -> None:
    """`kinds`, of `bars` = (open, high, low, close, volume): `NO_TRADE` where open, high and low are missing or zero,
    and the close is so too, or the volume is zero, or it is missing and one of the three is zero; `BELOW_ZERO` where
    two prices are not above zero, one of them below it (one alone is a wrong cell); else `BAR`."""
    opened, high, low, close, volume = bars
    for row in range(len(kinds)):
        prices = (opened[row], high[row], low[row], close[row])
        without = zeros = below = at_most_zero = 0
        for price in prices:
            without += np.isnan(price) or price == 0
            zeros += price == 0
            below += price < 0
            at_most_zero += price <= 0
        idle = volume[row] == 0 or (np.isnan(volume[row]) and zeros > 0)
        if without == 4 or (without == 3 and close[row] > 0 and idle):
            kinds[row] = NO_TRADE
        elif below and at_most_zero >= 2:
            kinds[row] = BELOW_ZERO


@kernel(_I4, _I4, _I4)
def find_repeated_keys(order: Integers, codes: Integers, days: Integers) -> Integers:
    """Rows that have the instrument and day of another one; `order` is by instrument and day."""
    marked = np.zeros(len(order), dtype=np.bool_)
    for k in range(1, len(order)):
        row, before = order[k], order[k - 1]
        if codes[row] == codes[before] and days[row] == days[before]:
            marked[k] = marked[k - 1] = True
    return order[marked]


@kernel(_I4, _I4, _INT)
def order_rows(codes: Integers, days: Integers, count: int) -> Integers:
    """The rows with a key by code (0..count-1) and day, then in the order given (code or day below 0: no key).

    One pass to count the codes and one to place their rows; the days of a code are sorted only where they are not."""
    begins = np.zeros(count + 1, dtype=np.int64)
    for row in range(len(codes)):
        if codes[row] >= 0 and days[row] >= 0:
            begins[codes[row] + 1] += 1
    for code in range(count):
        begins[code + 1] += begins[code]
    order, ends = np.empty(begins[count], dtype=np.int32), begins[:-1].copy()
    for row in range(len(codes)):
        if codes[row] >= 0 and days[row] >= 0:
            order[ends[codes[row]]] = row
            ends[codes[row]] += 1
    for code in range(count):
        own = order[begins[code] : begins[code + 1]]
        for k in range(1, len(own)):
            if days[own[k]] < days[own[k - 1]]:
                keys = np.empty(len(own), dtype=np.int64)
                for place in range(len(own)):
                    keys[place] = np.int64(days[own[place]]) * len(own) + place
                keys.sort()
                own[:] = own[keys % len(own)]
                break
    return order


@kernel(_I4, types.boolean[::1])
def keep(order: Integers, marked: NDArray[np.bool_]) -> Integers:
    """The rows of `order` that are marked; `order` itself where all are."""
    count = 0
    for row in order:
        count += marked[row]
    if count == len(order):
        return order
    kept = np.empty(count, dtype=np.int32)
    count = 0
    for row in order:
        if marked[row]:
            kept[count] = row
            count += 1
    return kept


@kernel(_I4, _I4, _INT)
def find_begins(order: Integers, codes: Integers, count: int) -> NDArray[np.int64]:
    """Where each code 0..count-1 begins in `order`, which is by code, and the length at the end."""
    begins = np.empty(count + 1, dtype=np.int64)
    for code in range(count + 1):
        low, high = 0, len(order)
        while low < high:
            middle = (low + high) // 2
            if codes[order[middle]] < code:
                low = middle + 1
            else:
                high = middle
        begins[code] = low
    return begins


@kernel(_I4, types.boolean[::1])
def find_places(order: Integers, marked: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Positions in `order` of the rows that are marked."""
    count = 0
    for row in order:
        count += marked[row]
    places = np.empty(count, dtype=np.int64)
    count = 0
    for k in range(len(order)):
        if marked[order[k]]:
            places[count] = k
            count += 1
    return places


@kernel(_I4, _I4)
def look_up(table: Integers, keys: Integers) -> Integers:
    """The value of each key 0..len(table)-1; -1 of others."""
    found = np.empty_like(keys)
    for row in range(len(keys)):
        found[row] = table[keys[row]] if 0 <= keys[row] < len(table) else -1
    return found


@kernel(_I4, _FIELD, _FIELD, _INT, _I4)
def count_copies(days: Integers, close: Floats, volume: Floats, count: int, copies: Integers) -> None:
    """`copies`: rows of the same day (0..count-1) with the same close and the same positive volume.

    The rows are placed by day with a hash of both, so that only what has the same hash is looked up."""
    begins = np.zeros(count + 1, dtype=np.int64)
    for row in range(len(days)):
        if days[row] >= 0 and volume[row] > 0 and not np.isnan(close[row]):
            begins[days[row] + 1] += 1
    for day in range(count):
        begins[day + 1] += begins[day]
    rows, hashes = np.empty(begins[count], dtype=np.int32), np.empty(begins[count], dtype=np.int32)
    ends = begins[:-1].copy()
    for row in range(len(days)):
        if days[row] >= 0 and volume[row] > 0 and not np.isnan(close[row]):
            rows[ends[days[row]]] = row
            hashes[ends[days[row]]] = _hash_of(close[row], volume[row])
            ends[days[row]] += 1
    for day in range(count):
        begin, end = begins[day], begins[day + 1]
        size = 16
        while size < 2 * (end - begin):
            size *= 2
        owners = np.full(size, -1, dtype=np.int32)
        twins, firsts, found = np.empty(end - begin, dtype=np.int32), np.empty(end - begin, dtype=np.int32), 0
        for k in range(begin, end):
            slot = hashes[k] & (size - 1)
            while owners[slot] >= 0:
                row, other = rows[k], rows[owners[slot]]
                if hashes[k] == hashes[owners[slot]] and close[row] == close[other] and volume[row] == volume[other]:
                    copies[other] += 1
                    twins[found], firsts[found] = row, other
                    found += 1
                    break
                slot = (slot + 1) & (size - 1)
            else:
                owners[slot] = k
        for place in range(found):
            copies[twins[place]] = copies[firsts[place]]


@inner
def _hash_of(close: float, volume: float) -> np.int32:
    """31 bits; the same for 0.0 and -0.0, which are equal."""
    mixed = np.float64(close + 0.0).view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(32))) + np.float64(volume).view(np.uint64)
    mixed = mixed * np.uint64(0xC2B2AE3D27D4EB4F)
    return np.int32((mixed ^ (mixed >> np.uint64(29))) >> np.uint64(33))


@kernel(_I4, _I4, types.UniTuple(_FIELD, 3), types.UniTuple(_F4, 3))
def measure_moves(
    chain: Integers,
    codes: Integers,
    bars: tuple[Floats, Floats, Floats],
    out: tuple[SmallFloats, SmallFloats, SmallFloats],
) -> None:
    """Against the previous bar, from `bars` = (open, close, factor): absolute adjusted close return; ratio of the
    factors; absolute adjusted return up to the open where the factor changed by enough to account for it, else 0."""
    opened, close, factor = bars
    jump, factor_ratio, factor_gap = out
    for k in range(1, len(chain)):
        row, before = chain[k], chain[k - 1]
        if codes[row] != codes[before]:
            continue
        ratio = factor[row] / factor[before]
        jump[row] = abs(np.log(close[row] / close[before] * ratio))
        factor_ratio[row] = ratio
        factor_gap[row] = 0.0
        if abs(ratio - 1) > _SAME_FACTOR:
            first = opened[row] if opened[row] > 0 else close[row]
            moved, change = np.log(first / close[before]), np.log(ratio)
            if abs(moved + change) < 1.5 * abs(change):
                factor_gap[row] = abs(moved + change)


@kernel(_I4, _I4, types.UniTuple(_FIELD, 5), types.UniTuple(types.int16[::1], 3))
def measure_repeats(
    chain: Integers,
    codes: Integers,
    bars: tuple[Floats, Floats, Floats, Floats, Floats],
    out: tuple[SmallIntegers, SmallIntegers, SmallIntegers],
) -> None:
    """How many bars in a row before this one have exactly the same open, high, low, close and volume: `repeats` where
    high is above low, `flat_repeats` where all prices are one. Both are 0 where the volume is, as in a suspension, and
    `flat_repeats` where it is unknown. `idle`: bars in a row up to this one with the previous close and no volume,
    or an unknown one at one price."""
    opened, high, low, close, volume = bars
    repeats, flat_repeats, idle = out
    for k in range(1, len(chain)):
        row, before = chain[k], chain[k - 1]
        if codes[row] != codes[before]:
            continue
        if close[row] == close[before] and (volume[row] == 0 or (np.isnan(volume[row]) and not high[row] > low[row])):
            idle[row] = min(idle[before] + 1, 32767)
        if volume[row] == 0:
            continue
        if (
            close[row] != close[before]
            or opened[row] != opened[before]
            or high[row] != high[before]
            or low[row] != low[before]
        ):
            continue
        if volume[row] != volume[before] and not (np.isnan(volume[row]) and np.isnan(volume[before])):
            continue
        if high[row] > low[row]:
            repeats[row] = min(repeats[before] + 1, 32767)
        elif volume[row] > 0:
            flat_repeats[row] = min(flat_repeats[before] + 1, 32767)


@kernel(types.Array(types.int64, 1, "C", readonly=True), types.int8[::1])
def number_days(moments: NDArray[np.int64], kinds: NDArray[np.int8]) -> tuple[Integers, int]:
    """The day of each row since the earliest, -1 without a date or a trade, and that earliest day since 1970; from
    `moments` in nanoseconds and `kinds` as `classify_rows` gives them."""
    days = np.empty(len(moments), dtype=np.int32)
    first = np.int32(2**31 - 1)
    for row in range(len(moments)):
        if moments[row] == _NOT_A_TIME or kinds[row] == NO_TRADE:
            days[row] = -(2**31)
        else:
            days[row] = moments[row] // _DAY_NS
            first = min(first, days[row])
    for row in range(len(days)):
        days[row] = -1 if days[row] == -(2**31) else days[row] - first
    return days, int(first)


@kernel(_I4, _INT)
def count_keys(keys: Integers, count: int) -> NDArray[np.int64]:
    """How often each key 0..count-1 occurs; others are left out."""
    counts = np.zeros(count, dtype=np.int64)
    for key in keys:
        if key >= 0:
            counts[key] += 1
    return counts


@kernel(_I4, _I4, _I4, types.boolean[:, ::1])
def mark_presence(codes: Integers, days: Integers, places: Integers, present: NDArray[np.bool_]) -> None:
    """`present` (instrument, place): whether the instrument has a row on the day at that place."""
    for row in range(len(codes)):
        if codes[row] >= 0 and days[row] >= 0:
            present[codes[row], places[days[row]]] = True


@kernel(
    types.UniTuple(_I4, 2),
    _I4,
    _SESSION_TABLES,
    types.Tuple((_I4, _I4, types.int8[::1])),
)
def place_days(
    rows: tuple[Integers, Integers],
    calendar_of: Integers,
    tables: tuple[Integers, NDArray[np.int8], Integers],
    out: tuple[Integers, Integers, NDArray[np.int8]],
) -> None:
    """For each row: sessions of its calendar up to its day; the number of its session among those of all calendars, -1
    off the calendar; and whether the day is a session (1 without a key).

    `rows` = (codes, days); `calendar_of` each code; `tables` = sessions until and whether it is one for (calendar,
    day), and sessions of the calendars before."""
    codes, days = rows
    counts, opened, before = tables
    until, sessions, on_session = out
    for row in range(len(codes)):
        if codes[row] >= 0 and days[row] >= 0:
            calendar = calendar_of[codes[row]]
            until[row] = counts[calendar, days[row]]
            on_session[row] = opened[calendar, days[row]]
            if on_session[row]:
                sessions[row] = before[calendar] + until[row] - 1


@kernel(_I4, _I4, _I4, _I4)
def measure_gaps(chain: Integers, codes: Integers, until: Integers, missing: Integers) -> None:
    """`missing`: sessions between a bar and the previous one, from `until` = sessions up to each row's day."""
    for k in range(1, len(chain)):
        row, before = chain[k], chain[k - 1]
        if codes[row] == codes[before]:
            missing[row] = max(until[row] - until[before] - 1, 0)


@kernel(_I4, _I4, types.UniTuple(_FIELD, 5), _FLOAT, _F4)
def measure_spikes(
    chain: Integers,
    codes: Integers,
    bars: tuple[Floats, Floats, Floats, Floats, Floats],
    agreement: float,
    spike: SmallFloats,
) -> None:
    """How far a whole bar lies from the previous close and the next open, where those two agree; from `bars` = (open,
    high, low, close, factor)."""
    opened, high, low, close, factor = bars
    for k in range(1, len(chain) - 1):
        before, row, after = chain[k - 1], chain[k], chain[k + 1]
        if codes[before] != codes[row] or codes[after] != codes[row]:
            continue
        left = close[before] * factor[before]
        right = (opened[after] if opened[after] > 0 else close[after]) * factor[after]
        level = close[row] * factor[row]
        if max(left, right) < level * 1.1 and level < min(left, right) * 1.1:
            continue
        if abs(np.log(right / left)) > agreement:
            continue
        above = low[row] * factor[row] / max(left, right)
        below = min(left, right) / (high[row] * factor[row])
        spike[row] = max(np.log(above) if above > 0 else 0.0, np.log(below) if below > 0 else 0.0, 0.0)


@kernel(_I4, _I4, types.UniTuple(_FIELD, 2), types.float64[::1], _INT)
def find_volume_breaks(
    chain: Integers, codes: Integers, fields: tuple[Floats, Floats], units: Floats, bars: int
) -> list[tuple[int, float]]:
    """Rows from which on the volume is counted in another unit: the least of the next `bars` traded volumes is above
    three times the largest of as many before (or the other way round), and the ratio of the medians is within a
    factor of two of a unit; but not where the factor changes by three, as with a split that multiplies the shares.
    `fields` = (volume, factor). Pairs of row and unit."""
    volume, factor = fields
    found = [(int(row), 0.0) for row in chain[:0]]
    left, right = np.empty(bars), np.empty(bars)
    for k in range(bars, len(chain) - bars + 1):
        row, before = chain[k], chain[k - 1]
        if codes[row] != codes[before] or not volume[row] > 0 or not volume[before] > 0:
            continue
        if 0.2 < volume[row] / volume[before] < 5 or not 1 / 3 < factor[row] / factor[before] < 3:
            continue
        if codes[chain[k - bars]] != codes[row] or codes[chain[k + bars - 1]] != codes[row]:
            continue
        for lag in range(bars):
            left[lag], right[lag] = volume[chain[k - 1 - lag]], volume[chain[k + lag]]
        if not (left.min() > 0 and right.min() > 0):
            continue
        if right.min() < 3 * left.max() and left.min() < 3 * right.max():
            continue
        shift = np.median(right) / np.median(left)
        unit = np.argmin(np.abs(np.log(units) - np.log(shift)))
        if 0.5 < shift / units[unit] < 2:
            found.append((int(row), units[unit]))
    return found


@kernel(
    _I4,
    types.Tuple((_I4, _I4, types.int16[::1], types.int64[::1])),
    types.UniTuple(_FIELD, 3),
    _FLOAT,
    _SESSION_MEASURES,
)
def measure_sessions(
    chain: Integers,
    rows: tuple[Integers, Integers, SmallIntegers, NDArray[np.int64]],
    bars: tuple[Floats, Floats, Floats],
    jump: float,
    out: tuple[Integers, Integers, Integers, Floats, Floats],
) -> None:
    """Across the instruments of each session: how many moved since their previous bar, jumped by more than `jump`, and
    repeat that bar; median ratio of adjusted closes and of positive volumes to it (NaN where there is none).

    `rows` = (codes, sessions, repeats, number of rows of each session), a session is -1 off the calendar; `bars` =
    (close, volume, factor)."""
    codes, sessions, repeats, rows_on = rows
    close, volume, factor = bars
    moved, jumped, repeated, price_ratio, volume_ratio = out
    count = len(moved)
    begins = np.zeros(count + 1, dtype=np.int64)
    for session in range(count):
        begins[session + 1] = begins[session] + rows_on[session]
    prices, volumes = np.empty(begins[-1], dtype=np.float32), np.empty(begins[-1], dtype=np.float32)
    traded = np.zeros(count, dtype=np.int64)
    # Only what lies near or beyond the limits needs a logarithm.
    low, high = np.exp(-jump) * 1.000001, np.exp(jump) * 0.999999
    for k in range(1, len(chain)):
        row, before = chain[k], chain[k - 1]
        session = sessions[row]
        if session < 0 or codes[row] != codes[before]:
            continue
        ratio = close[row] * factor[row] / (close[before] * factor[before])
        prices[begins[session] + moved[session]] = ratio
        moved[session] += 1
        if not low < ratio < high:
            jumped[session] += abs(np.log(ratio)) > jump
        repeated[session] += repeats[row] > 0
        if volume[row] > 0 and volume[before] > 0:
            volumes[begins[session] + traded[session]] = volume[row] / volume[before]
            traded[session] += 1
    for session in range(count):
        price_ratio[session] = volume_ratio[session] = np.nan
        if moved[session]:
            price_ratio[session] = _median(prices[begins[session] : begins[session] + moved[session]])
        if traded[session]:
            volume_ratio[session] = _median(volumes[begins[session] : begins[session] + traded[session]])


_BUCKETS, _BUCKET_BITS = 4096, 13
"""Buckets of neighbouring float32 numbers, each of 2 ** `_BUCKET_BITS` of them: a tenth of a percent wide."""
_INFINITE = 0x7F800000
"""The bits of what is infinite; NaN lies beyond or below 0."""


@inner
def _median(values: SmallFloats) -> np.float32:
    """As `np.median`, for positive numbers of which most are near the first: they are counted by size, so that only
    those of the middle are sorted."""
    numbers = values.view(np.int32)
    count, lowest = len(values), (numbers[0] >> _BUCKET_BITS) - _BUCKETS // 2
    sizes, strange = np.zeros(_BUCKETS, dtype=np.int32), False
    for number in numbers:
        strange |= not 0 <= number <= _INFINITE
        sizes[min(max((number >> _BUCKET_BITS) - lowest, 0), _BUCKETS - 1)] += 1
    below, first = 0, 0
    while below + sizes[first] <= (count - 1) // 2:
        below += sizes[first]
        first += 1
    through, last = below + sizes[first], first
    while through <= count // 2:
        last += 1
        through += sizes[last]
    if strange or first == 0 or last == _BUCKETS - 1:
        return np.median(values)
    middle = np.empty(through - below, dtype=np.float32)
    place = 0
    for k in range(count):
        if lowest + first <= numbers[k] >> _BUCKET_BITS <= lowest + last:
            middle[place] = values[k]
            place += 1
    middle.sort()
    return np.median(middle[(count - 1) // 2 - below : count // 2 - below + 1])


@kernel(_I4, types.UniTuple(_I4, 2), types.UniTuple(_FIELD, 3), _I4, types.UniTuple(types.float64[::1], 2))
def measure_common_moves(
    chain: Integers,
    rows: tuple[Integers, Integers],
    bars: tuple[Floats, Floats, Floats],
    place_of: Integers,
    out: tuple[Floats, Floats],
) -> None:
    """For each chosen session: the median ratio of the open to the previous close, and the median distance of the
    instruments' moves from their median; adjusted, NaN where no instrument moved.

    `rows` = (codes, sessions), `bars` = (open, close, factor), `place_of` a session: its place in `out`, -1 where it
    is not chosen."""
    codes, sessions = rows
    opened, close, factor = bars
    overnight, spread = out
    begins = np.zeros(len(overnight) + 1, dtype=np.int64)
    for k in range(1, len(chain)):
        row = chain[k]
        if sessions[row] >= 0 and place_of[sessions[row]] >= 0 and codes[row] == codes[chain[k - 1]]:
            begins[place_of[sessions[row]] + 1] += 1
    for place in range(len(overnight)):
        begins[place + 1] += begins[place]
    firsts, moves = np.empty(begins[-1]), np.empty(begins[-1])
    ends = begins[:-1].copy()
    for k in range(1, len(chain)):
        row, before = chain[k], chain[k - 1]
        if sessions[row] < 0 or place_of[sessions[row]] < 0 or codes[row] != codes[before]:
            continue
        place = place_of[sessions[row]]
        level = close[before] * factor[before]
        firsts[ends[place]] = (opened[row] if opened[row] > 0 else close[row]) * factor[row] / level
        moves[ends[place]] = np.log(close[row] * factor[row] / level)
        ends[place] += 1
    for place in range(len(overnight)):
        overnight[place] = spread[place] = np.nan
        if ends[place] > begins[place]:
            own = moves[begins[place] : ends[place]]
            overnight[place] = np.median(firsts[begins[place] : ends[place]])
            spread[place] = np.median(np.abs(own - np.median(own)))


@kernel(_I4, _I4, types.Tuple((_F4, _F4)), types.UniTuple(_FIELD, 3), _FLOAT)
def find_large_steps(
    chain: Integers,
    codes: Integers,
    jumps: tuple[SmallFloats, SmallFloats],
    fields: tuple[Floats, Floats, Floats],
    known: float,
) -> NDArray[np.int64]:
    """Positions in the chain of the bars that jump by more than the least of their instrument, or whose factor, or
    `preclose` over the previous close, differs by more than `known` (relative, and logarithm).

    `jumps` = (jump of each row, least of each code); `fields` = (factor, close, preclose), the last may be empty."""
    jump, least = jumps
    factor, close, preclose = fields
    found = np.empty(1024, dtype=np.int64)
    count = 0
    for k in range(1, len(chain)):
        row, before = chain[k], chain[k - 1]
        if codes[row] != codes[before]:
            continue
        large = jump[row] > least[codes[row]] or abs(factor[row] / factor[before] - 1) > known
        if not large and len(preclose):
            large = abs(np.log(preclose[row] / close[before])) > known
        if large:
            if count == len(found):
                found = np.concatenate((found, np.empty_like(found)))
            found[count] = k
            count += 1
    return found[:count].copy()
