"""`noisegate certs`: issue, show, verify and renew the certificates in a directory.

Exit codes: 0 done or good, 1 verification failed, 2 usage or unreadable input.
"""

import argparse
import json
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from noisegate.certs.pair import Facts
    from noisegate.certs.rotation import Outcome

LIFE = re.compile(r"([0-9]{1,6})([hdy])")
LIFE_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "y": timedelta(days=365)}

ISSUE = """\
Make a serving certificate, a client certificate, or both, and the authority (CA) where DIR holds none yet.

DIR then holds ca.crt, ca.key, and tls.crt, tls.key (serving) or client.crt, client.key. The server is given tls.crt
and tls.key; whoever calls it is given ca.crt: the API server as caBundle. ca.key signs: keep it away from servers.

example, for the admission server in the cluster and on this machine:
  noisegate certs issue DIR --service noisegate.noisegate-system --name localhost --name 127.0.0.1
example, with a client certificate for mutual TLS:
  noisegate certs issue DIR --name webhook.example.org --client kube-apiserver
"""
SHOW = """\
Show what the certificates in DIR (or in one PEM file) say: names, key, purpose, life, and from when to renew them.

example:
  noisegate certs show DIR -o json
"""
VERIFY = """\
Check the pairs in DIR as a peer would: the key fits the certificate, the authority in ca.crt signed it, it is valid
now, it is for its purpose, it is for the names given, and its keys are strong enough. Exits with 1 where it is not so.

example:
  noisegate certs verify DIR --name noisegate.noisegate-system.svc
"""
RENEW = """\
Replace each certificate in DIR that is past two thirds of its life, under the same names and with a new key; leave
the others. Made for a timer: run it daily. The authority is renewed only with --ca, since whoever trusts it (caBundle)
must learn of it first.

example, daily:
  noisegate certs renew DIR
example, a new authority, in three steps that --ca explains:
  noisegate certs renew DIR --ca
  noisegate certs renew DIR --force
  noisegate certs renew DIR --drop-old-ca
"""
AFTER_NEW_CA = """\
The new authority has signed nothing yet: peers that trust only the earlier one still accept every certificate here.
Do now, in this order:
  1. Give {directory}/ca.crt (all authorities in it) to everyone who trusts the earlier one: caBundle of each
     MutatingWebhookConfiguration and ValidatingWebhookConfiguration is its base64:
       base64 -w0 {directory}/ca.crt
  2. Then let the new authority sign, and wait until every server uses the new tls.crt:
       noisegate certs renew {directory} --force
  3. Then take the earlier authority out, and give ca.crt to everyone once more:
       noisegate certs renew {directory} --drop-old-ca
"""
AFTER_DROPPED_CA = """\
Give {directory}/ca.crt to everyone who trusts it once more; caBundle is its base64:
  base64 -w0 {directory}/ca.crt
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command `certs` and its sub-commands."""
    parser = subparsers.add_parser(
        "certs",
        help="issue, show, verify and renew certificates",
        description="A certificate authority of your own, with serving and client certificates, in one directory.",
    )
    parser.set_defaults(run=run, clock=_now)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    issue = _action(actions, "issue", "make certificates, and a CA where there is none", ISSUE)
    issue.add_argument("--name", action="append", default=[], help="DNS name or IP address to serve; may be repeated")
    issue.add_argument(
        "--service",
        action="append",
        default=[],
        metavar="NAME.NAMESPACE",
        help="serve the Service's names: NAME, NAME.NAMESPACE, NAME.NAMESPACE.svc, NAME.NAMESPACE.svc.cluster.local",
    )
    issue.add_argument("--client", metavar="NAME", help="make a client certificate with this name (its CN)")
    issue.add_argument("--life", type=life, metavar="LIFE", help="of the certificates: 12h, 90d, 1y (default 1y)")
    issue.add_argument("--ca-life", type=life, metavar="LIFE", help="of a CA that has to be made (default 10y)")
    issue.add_argument("--rsa", type=int, metavar="BITS", help="RSA keys of 3072 to 8192 bits (default: ECDSA P-256)")
    issue.add_argument("--replace", action="store_true", help="replace certificates that are there already")
    issue.set_defaults(act=_issue)

    show = _action(actions, "show", "show what certificates say", SHOW)
    show.add_argument("-o", "--output", choices=["table", "json"], default="table", help="how (default: table)")
    show.set_defaults(act=_show)

    verify = _action(actions, "verify", "check that pairs are good", VERIFY)
    verify.add_argument(
        "--name", action="append", default=[], help="the serving certificate must be for it; repeatable"
    )
    verify.add_argument("-o", "--output", choices=["text", "json"], default="text", help="how (default: text)")
    verify.set_defaults(act=_verify)

    renew = _action(actions, "renew", "renew what is past two thirds of its life", RENEW)
    renew.add_argument("--force", action="store_true", help="renew whatever the age")
    renew.add_argument("--life", type=life, metavar="LIFE", help="of what is made: 12h, 90d, 1y (default: as before)")
    which = renew.add_mutually_exclusive_group()
    which.add_argument("--ca", action="store_true", help="renew the CA instead, and tell what must be done then")
    which.add_argument("--drop-old-ca", action="store_true", help="take earlier CAs out of ca.crt, the last step")
    renew.set_defaults(act=_renew)


def run(args: argparse.Namespace) -> int:
    """Run the sub-command; return the exit code."""
    from noisegate.certs.pair import CertificateError  # noqa: PLC0415  (cryptography is slow to import)

    try:
        code: int = args.act(args)
    except CertificateError as error:
        print(f"noisegate certs {args.action}: {error}", file=sys.stderr)
        return 2
    return code


def _action(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, summary: str, text: str
) -> argparse.ArgumentParser:
    """Add a sub-command with a directory to work on."""
    parser = actions.add_parser(
        name, help=summary, description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", metavar="DIR", type=Path, help="directory of ca.crt, tls.crt, tls.key, ...")
    return parser


def _now() -> datetime:
    return datetime.now(UTC)


def life(text: str) -> timedelta:
    """Read a length of time such as `90d`."""
    match = LIFE.fullmatch(text)
    life = int(match[1]) * LIFE_UNITS[match[2]] if match else timedelta()
    if not timedelta() < life <= timedelta(days=36500):
        message = f'life "{text}" is not allowed; allowed: 1h to 100y, as hours (h), days (d) or years (y)'
        raise argparse.ArgumentTypeError(message)
    return life


def _issue(args: argparse.Namespace) -> int:
    from noisegate.certs.authority import AUTHORITY_LIFE, LEAF_LIFE  # noqa: PLC0415
    from noisegate.certs.names import client_name, read_names, service_names  # noqa: PLC0415
    from noisegate.certs.pair import CertificateError, check_rsa_bits  # noqa: PLC0415
    from noisegate.certs.rotation import issued  # noqa: PLC0415
    from noisegate.certs.store import Store  # noqa: PLC0415

    names = [name for service in args.service for name in service_names(service)] + args.name
    if not names and args.client is None:
        raise CertificateError("", "nothing to issue; allowed: --service, --name or --client, see --help")
    server = read_names(names) if names else None
    client = None if args.client is None else client_name(args.client)
    if args.rsa is not None:
        check_rsa_bits(args.rsa)
    outcomes = Store(args.directory).update(
        lambda pairs: issued(
            pairs,
            args.clock(),
            server=server,
            client=client,
            life=args.life or LEAF_LIFE,
            authority_life=args.ca_life or AUTHORITY_LIFE,
            rsa_bits=args.rsa,
            replace=args.replace,
        ),
        make=True,
    )
    _tell(outcomes)
    return 0


def _show(args: argparse.Namespace) -> int:
    now = args.clock()
    rows = _facts(args.directory)
    if args.output == "json":
        print(json.dumps({"certificates": [_described(name, facts, now) for name, facts in rows]}, indent=2))
        return 0
    table = [("NAME", "KEY", "PURPOSE", "VALID UNTIL", "USED", "RENEW FROM", "SUBJECT", "NAMES")]
    for name, facts in rows:
        said = _described(name, facts, now)
        due = " (now)" if said["due"] else ""
        purpose = "CA" if facts.authority else ",".join(facts.purposes) or "-"
        used = f"{facts.used(now):.0%}"
        names = " ".join(facts.names) or "-"
        table.append(
            (name, facts.key, purpose, said["notAfter"], used, f"{said['renewFrom']}{due}", facts.subject, names)
        )
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _verify(args: argparse.Namespace) -> int:
    from noisegate.certs.pair import CertificateError, facts_of, read_certificates  # noqa: PLC0415
    from noisegate.certs.rotation import CA, LEAVES  # noqa: PLC0415
    from noisegate.certs.store import Store  # noqa: PLC0415
    from noisegate.certs.verification import verify_authority, verify_leaf  # noqa: PLC0415

    now = args.clock()
    pairs = Store(args.directory).read()
    if CA not in pairs:
        raise CertificateError(str(args.directory / "ca.crt"), "is missing; it is needed to check the others against")
    results: list[dict[str, Any]] = []
    try:
        if args.name and "tls" not in pairs:
            raise CertificateError("tls.crt", "is missing; --name needs a serving certificate")
        for stem, pair in pairs.items():
            if stem == CA:
                reasons = verify_authority(pair, now)
            else:
                names = args.name if stem == "tls" else []
                reasons = verify_leaf(pair, pairs[CA].certificates, LEAVES[stem], now, names, stem=stem)
            due = facts_of(read_certificates(pair.certificates, f"{stem}.crt")[0]).due(now)
            results.append({"name": stem, "good": not reasons, "due": due, "reasons": reasons})
    except CertificateError as error:
        place = str(args.directory / error.place) if error.place else ""
        raise CertificateError(place, error.reason) from None
    if args.output == "json":
        print(json.dumps({"results": results}, indent=2))
    else:
        for result in results:
            late = ", past two thirds of its life: renew it" if result["good"] and result["due"] else ""
            print(f"{result['name']}: {'good' if result['good'] else 'BAD'}{late}")
            for reason in result["reasons"]:
                print(f"  {reason}")
    return 0 if all(result["good"] for result in results) else 1


def _renew(args: argparse.Namespace) -> int:
    from noisegate.certs.rotation import narrowed, renewed, succeeded  # noqa: PLC0415
    from noisegate.certs.store import Store  # noqa: PLC0415

    store = Store(args.directory)
    now = args.clock()
    if args.ca:
        outcomes = store.update(lambda pairs: succeeded(pairs, now, force=args.force, life=args.life))
    elif args.drop_old_ca:
        outcomes = store.update(narrowed)
    else:
        outcomes = store.update(lambda pairs: renewed(pairs, now, force=args.force, life=args.life))
    _tell(outcomes)
    if outcomes[-1].done and (args.ca or args.drop_old_ca):
        print((AFTER_NEW_CA if args.ca else AFTER_DROPPED_CA).format(directory=args.directory), end="")
    return 0


def _tell(outcomes: "list[Outcome]") -> None:
    """Print what became of each pair."""
    for outcome in outcomes:
        print(f"{outcome.stem} {outcome.text}")


def _facts(path: Path) -> "list[tuple[str, Facts]]":
    """Return what every certificate of a directory, or of one file, says; the second of a file is `tls[1]`."""
    from noisegate.certs.pair import CertificateError, facts_of, read_certificates  # noqa: PLC0415
    from noisegate.certs.store import Store  # noqa: PLC0415

    if path.is_file():
        try:
            files = {path.name: (path.read_bytes(), str(path))}
        except OSError as error:
            raise CertificateError(str(path), f"cannot be read: {error.strerror}") from error
    else:
        pairs = Store(path).read()
        files = {stem: (pair.certificates, str(path / f"{stem}.crt")) for stem, pair in pairs.items()}
        if not files:
            raise CertificateError(str(path), "holds no certificates; allowed: a directory with ca.crt, tls.crt, ...")
    return [
        (f"{name}[{index}]" if index else name, facts_of(certificate))
        for name, (pem, place) in files.items()
        for index, certificate in enumerate(read_certificates(pem, place))
    ]


def _described(name: str, facts: "Facts", now: datetime) -> dict[str, Any]:
    """Return what a certificate says as JSON."""
    from noisegate.certs.pair import plain  # noqa: PLC0415

    return {
        "name": name,
        "subject": facts.subject,
        "issuer": facts.issuer,
        "serial": facts.serial,
        "names": list(facts.names),
        "key": facts.key,
        "purposes": list(facts.purposes),
        "authority": facts.authority,
        "notBefore": plain(facts.not_before),
        "notAfter": plain(facts.not_after),
        "used": round(facts.used(now), 4),
        "renewFrom": plain(facts.renew_at),
        "due": facts.due(now),
        "sha256": facts.fingerprint,
    }
