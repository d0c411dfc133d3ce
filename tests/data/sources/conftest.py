"""The vendors that the tests ask, on this machine."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from baostock.common import contants

from tests.data.sources.vendors import BaostockServer, Vendor, VendorProxy, make_certificate, serving


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the local vendors are known by."""
    return make_certificate(tmp_path_factory.mktemp("vendors") / "certificate.pem")


@pytest.fixture
def vendor(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Vendor]:
    """A vendor that the three clients reach over their own protocols."""
    vendor = Vendor()
    proxy, server = VendorProxy(vendor, certificate), BaostockServer(vendor)
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.server_address[1]}")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    monkeypatch.setattr(contants, "BAOSTOCK_SERVER_IP", server.server_address[0])
    monkeypatch.setattr(contants, "BAOSTOCK_SERVER_PORT", server.server_address[1])
    with serving(proxy), serving(server):
        yield vendor
