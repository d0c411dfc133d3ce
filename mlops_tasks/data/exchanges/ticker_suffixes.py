"""Which calendar a ticker's spelling suggests: one table of the suffixes and prefixes that vendors write."""

import re
from collections.abc import Mapping

SUFFIXES: Mapping[str, str] = {
    suffix: calendar
    for calendar, suffixes in {
        "XNYS": "US N O OQ NYSE NASDAQ",
        "XTSE": "TO V CN NE",
        "XMEX": "MX",
        "BVMF": "SA",
        "XBUE": "BA",
        "XSGO": "SN",
        "XLIM": "LM",
        "XBOG": "CL",
        "XLON": "L IL UK LON",
        "XDUB": "IR",
        "XPAR": "PA",
        "XAMS": "AS",
        "XBRU": "BR",
        "XLIS": "LS",
        "XMIL": "MI",
        "XMAD": "MC",
        "XETR": "DE XETRA",
        "XFRA": "F",
        "XDUS": "DU",
        "XHAM": "HM",
        "XSTU": "SG",
        "XSWX": "SW",
        "XWBO": "VI",
        "XSTO": "ST",
        "XHEL": "HE",
        "XCSE": "CO",
        "XOSL": "OL",
        "XICE": "IC",
        "XTAL": "TL",
        "XRIS": "RG",
        "XLIT": "VS",
        "XWAR": "WA",
        "XPRA": "PR",
        "XBUD": "BD",
        "XBSE": "RO",
        "ASEX": "AT",
        "XIST": "IS",
        "XTAE": "TA",
        "XSAU": "SR",
        "XJSE": "JO",
        "XMOS": "ME",
        "XSHG": "SS SZ SH BJ XSHG XSHE",
        "XHKG": "HK",
        "XTKS": "T JP TYO",
        "XKRX": "KS KQ",
        "XTAI": "TW TWO",
        "XBOM": "NS BO",
        "XKAR": "KA",
        "XIDX": "JK",
        "XKLS": "KL",
        "XBKK": "BK",
        "XSES": "SI",
        "XPHS": "PS",
        "XASX": "AX",
        "XNZE": "NZ",
    }.items()
    for suffix in suffixes.split()
}
"""The suffix after a name's last dot, in upper case, to a calendar of exchange_calendars."""

_A_SHARE = re.compile(r"(?:SH|SZ|BJ)\.?\d{6}", re.IGNORECASE)
_COIN = re.compile(r"[A-Z0-9]{2,10}-(?:USD|USDT|USDC|EUR|BTC)|[A-Z0-9]{2,10}USDT", re.IGNORECASE)
_CURRENCIES = re.compile(r"[A-Z]{6}=X", re.IGNORECASE)


def suggested_calendar(name: str) -> str | None:
    """The calendar of 7203.T, SH600000, sh.600000, BTC-USD or EURUSD=X; None where the spelling says nothing."""
    if _A_SHARE.fullmatch(name):
        return "XSHG"
    if _COIN.fullmatch(name):
        return "24/7"
    if _CURRENCIES.fullmatch(name):
        return "24/5"
    _, dot, suffix = name.rpartition(".")
    return SUFFIXES.get(suffix.upper()) if dot else None
