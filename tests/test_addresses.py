"""Which addresses a result may live at: private, reserved and special ranges, and what else passes for a host."""

import ipaddress
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from proxy.errors import ProviderBadResult
from proxy.upstream.addresses import AddressRefused, ResultAddresses, is_public, public_socket

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "2606:4700:4700::1111",
    "2001:4860:4860::8888",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2002:808:808::1",
]
SPECIAL = [
    *("127.0.0.1", "127.255.255.254", "0.0.0.1", "10.0.0.8", "172.16.0.1", "192.168.1.1"),
    *("169.254.169.254", "100.64.0.1", "192.0.2.1", "198.18.0.1", "203.0.113.9", "240.0.0.1", "255.255.255.255"),
    *("192.0.0.8", "192.0.0.170", "224.0.0.1", "239.255.255.250"),
    *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12:3456::1", "fec0::1", "ff02::1", "ff0e::1"),
    *("2001:db8::1", "100::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.8", "::ffff:169.254.169.254", "::ffff:224.0.0.1"),
    *("::127.0.0.1", "::10.0.0.8"),
    *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1", "64:ff9b:1::808:808"),
    *("2002:7f00:1::", "2002:a00:8::1", "2001:0:7f00:1::", "2001:0:808:808::f5ff:fffe"),
]

IMAGES = "https://images.prodia.xyz/a.png"
LISTED = ResultAddresses(("images.prodia.xyz",))
ANY = ResultAddresses()
PRIVATE = ResultAddresses(allow_private=True)
PRIVATE_LISTED = ResultAddresses(("images.prodia.xyz",), allow_private=True)


def _literal(address: str) -> str:
    return f"[{address.replace('%', '%25')}]" if ":" in address else address


@pytest.mark.parametrize("address", PUBLIC)
def test_an_ordinary_address_is_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))
    assert ANY.check(f"https://{_literal(address)}/a.png").startswith("https://")


@pytest.mark.parametrize("address", SPECIAL)
def test_a_special_address_is_not(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    for rule in (ANY, LISTED):
        with pytest.raises(ProviderBadResult):
            rule.check(f"https://{_literal(address)}/a.png")
    assert PRIVATE.check(f"http://{_literal(address)}:8080/a.png").startswith("http://")


@given(st.ip_addresses(v=4))
@settings(max_examples=50, deadline=None)
def test_an_ipv4_address_is_no_more_public_in_any_wrapping(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    mapped = ipaddress.IPv6Address((0xFFFF << 32) | number)
    nat64 = ipaddress.IPv6Address((0x64FF9B << 96) | number)
    six_to_four = ipaddress.IPv6Address((0x2002 << 112) | (number << 80) | 1)
    for wrapped in (mapped, nat64, six_to_four):
        assert is_public(address) or not is_public(wrapped)


@pytest.mark.parametrize("address", SPECIAL)
def test_no_socket_is_made_for_a_special_address(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    destination = (address, 443, 0, 0) if ":" in address else (address, 443)
    with pytest.raises(AddressRefused):
        public_socket((family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", destination))


def test_a_socket_is_made_for_a_public_address() -> None:
    made = public_socket((socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("1.1.1.1", 443)))
    with made:
        assert (made.family, made.type) == (socket.AF_INET, socket.SOCK_STREAM)


@pytest.mark.parametrize(
    ("rule", "address", "normal"),
    [
        (LISTED, IMAGES, IMAGES),
        (LISTED, "https://IMAGES.Prodia.XYZ/A.png", "https://images.prodia.xyz/A.png"),
        (LISTED, "HTTPS://images.prodia.xyz:443/a.png", IMAGES),
        (LISTED, f"{IMAGES}?download=1", f"{IMAGES}?download=1"),
        (ANY, "https://pictures.test/a b.png", "https://pictures.test/a%20b.png"),
        (ANY, "https://bücher.test/a.png", "https://xn--bcher-kva.test/a.png"),
        (ANY, "https://my_bucket.cdn-7.test/a.png", "https://my_bucket.cdn-7.test/a.png"),
        (ANY, "https://7.test/a.png", "https://7.test/a.png"),
        (PRIVATE, "http://127.0.0.1:9000/a.png", "http://127.0.0.1:9000/a.png"),
        (PRIVATE, "http://localhost/a.png", "http://localhost/a.png"),
        (PRIVATE, "http://pictures.test:9000/a.png", "http://pictures.test:9000/a.png"),
        (PRIVATE_LISTED, "http://10.0.0.8/a.png", "http://10.0.0.8/a.png"),
        (PRIVATE_LISTED, "http://images.prodia.xyz/a.png", "http://images.prodia.xyz/a.png"),
    ],
)
def test_an_allowed_address_comes_back_in_its_normal_form(rule: ResultAddresses, address: str, normal: str) -> None:
    assert rule.check(address) == normal


REFUSED = {
    "other host": "https://evil.test/a.png",
    "host as user": "https://images.prodia.xyz@evil.test/a.png",
    "user and password": "https://user:secret@images.prodia.xyz/a.png",
    "user": "https://user@images.prodia.xyz/a.png",
    "empty user": "https://:@images.prodia.xyz/a.png",
    "port": "https://images.prodia.xyz:8443/a.png",
    "http port": "https://images.prodia.xyz:80/a.png",
    "port zero": "https://images.prodia.xyz:0/a.png",
    "port out of range": "https://images.prodia.xyz:99999/a.png",
    "port no number": "https://images.prodia.xyz:https/a.png",
    "http": "http://images.prodia.xyz/a.png",
    "trailing dot": "https://images.prodia.xyz./a.png",
    "subdomain": "https://evil.images.prodia.xyz/a.png",
    "prefix": "https://eviliimages.prodia.xyz/a.png",
    "suffix": "https://images.prodia.xyz.evil.test/a.png",
    "backslash": "https://images.prodia.xyz\\@evil.test/a.png",
    "backslash after": "https://evil.test\\.images.prodia.xyz/a.png",
    "fragment trick": "https://evil.test#@images.prodia.xyz/a.png",
    "query trick": "https://evil.test?@images.prodia.xyz/a.png",
    "no scheme": "//images.prodia.xyz/a.png",
    "relative": "/a.png",
    "bare name": "images.prodia.xyz/a.png",
    "empty": "",
    "no host": "https:///a.png",
    "file": "file:///etc/passwd",
    "ftp": "ftp://images.prodia.xyz/a.png",
    "data": "data:image/png;base64,AAAA",
    "script": "javascript:alert(1)",
    "broken literal": "https://[images.prodia.xyz/a.png",
    "overlong": f"https://images.prodia.xyz/{'a' * 2048}.png",
}


@pytest.mark.parametrize("address", REFUSED.values(), ids=REFUSED)
def test_anything_else_is_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(ProviderBadResult) as caught:
        LISTED.check(address)
    assert "evil" not in caught.value.message
    assert "secret" not in caught.value.message


def test_2048_characters_are_the_most() -> None:
    base = "https://images.prodia.xyz/"
    assert LISTED.check(base + "a" * (2048 - len(base)))
    with pytest.raises(ProviderBadResult):
        LISTED.check(base + "a" * (2049 - len(base)))


@pytest.mark.parametrize(
    "host",
    [
        *("2130706433", "0x7f000001", "017700000001", "127.1", "127.0.1", "0177.0.0.1", "0x7f.0.0.1", "0", "1"),
        *("127.0.0.1.", "１２７.0.0.1", "localhost", "LOCALHOST", "api.localhost", "localhost.", "ⓛocalhost"),
        *("%6c%6fcalhost", "127%2e0%2e0%2e1", "a..b", "h.test.", "host.0x7f", "host.1", "-"),
    ],
)
def test_a_host_that_is_no_public_name_is_refused(host: str) -> None:
    with pytest.raises(ProviderBadResult):
        ANY.check(f"https://{host}/a.png")


@pytest.mark.parametrize(
    "address",
    ["ftp://127.0.0.1/a.png", "ftp://pictures.test/a.png", "file://localhost/etc/passwd", "https://u:p@127.0.0.1/a"],
)
def test_private_hosts_may_be_reached_by_http_only(address: str) -> None:
    with pytest.raises(ProviderBadResult):
        PRIVATE.check(address)


def test_allowing_private_hosts_does_not_open_the_list() -> None:
    with pytest.raises(ProviderBadResult):
        PRIVATE_LISTED.check("https://evil.test/a.png")


@given(st.text(max_size=40).map(lambda text: f"https://{text}") | st.text(max_size=40))
@settings(max_examples=150, deadline=None)
def test_any_text_is_refused_or_leads_to_the_listed_host(address: str) -> None:
    try:
        url = URL(LISTED.check(address))
    except ProviderBadResult:
        return
    assert (url.scheme, url.host, url.port, url.user) == ("https", "images.prodia.xyz", 443, None)
