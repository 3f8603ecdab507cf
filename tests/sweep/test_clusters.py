"""The shipped cluster files: by Ray's own schema, and on an emulated EC2 as far as instances."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.aws import REGION, emulated

ROOT = Path(__file__).parents[2]
FILES = ["cluster.yaml", "clusters/gcp.yaml", "clusters/local.yaml"]


def read(name: str) -> dict:
    return yaml.safe_load((ROOT / name).read_text())


def prepared(config: dict) -> dict:
    """What the launcher makes of a cluster file. Raises where it would refuse it."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(config)
    validate_config(config)
    return config


@pytest.mark.parametrize("name", FILES)
def test_ray_accepts_the_file(name):
    config = prepared(read(name))
    assert config["max_workers"] >= 2
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        starts = [command for command in commands if "ray start" in command]
        assert len(starts) == 1
        assert "0.0.0.0" not in starts[0]
    assert "--dashboard-host=127.0.0.1" in " ".join(config["head_start_ray_commands"])
    assert "constraints.txt" in " ".join([*config["setup_commands"], *config["head_setup_commands"], *config["worker_setup_commands"]])


@pytest.mark.parametrize(
    ("break_it", "why"),
    [
        (lambda c: c.update(max_worker=3), "max_worker"),
        (lambda c: c["available_node_types"]["gpu_spot"].update(min_workers=9, max_workers=9), "max_workers"),
        (lambda c: c.update(head_node_type="heads"), "head_node_type"),
    ],
)
def test_ray_refuses_a_broken_file(break_it, why):
    config = read("cluster.yaml")
    break_it(config)
    with pytest.raises(Exception, match=why):
        prepared(config)


@pytest.fixture
def account(monkeypatch, tmp_path):
    """An emulated account in which the stack of clusters/aws_access.yaml stands, and its clients."""
    boto3 = pytest.importorskip("boto3")
    with emulated() as environment:
        for key, value in environment.items():
            monkeypatch.setenv(key, value)
        monkeypatch.setenv("HOME", str(tmp_path))  # the launcher writes a key pair there
        values = {"Bucket": "our-results", "SshFrom": "192.0.2.7/32"}
        boto3.client("cloudformation").create_stack(
            StackName="karenina",
            TemplateBody=(ROOT / "clusters/aws_access.yaml").read_text(),
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in values.items()],
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )
        yield boto3


def policies(boto3, profile: str) -> list[dict]:
    """The statements of all policies that instances of a profile have."""
    iam = boto3.client("iam")
    (role,) = iam.get_instance_profile(InstanceProfileName=profile)["InstanceProfile"]["Roles"]
    assert iam.list_role_policies(RoleName=role["RoleName"])["PolicyNames"] == []
    found = []
    for attached in iam.list_attached_role_policies(RoleName=role["RoleName"])["AttachedPolicies"]:
        version = iam.get_policy(PolicyArn=attached["PolicyArn"])["Policy"]["DefaultVersionId"]
        document = iam.get_policy_version(PolicyArn=attached["PolicyArn"], VersionId=version)["PolicyVersion"]["Document"]
        found += (json.loads(document) if isinstance(document, str) else document)["Statement"]
    return found


def test_workers_may_use_the_results_bucket_and_nothing_else(account):
    statements = policies(account, "karenina-worker")
    resources = {s["Resource"] for s in statements}
    assert resources == {"arn:aws:s3:::our-results", "arn:aws:s3:::our-results/*"}
    assert all(action.startswith("s3:") and "*" not in action for s in statements for action in s["Action"])
    writes = [s for s in statements if "s3:PutObject" in s["Action"]]
    assert [s["Resource"] for s in writes] == ["arn:aws:s3:::our-results/*"]
    head = policies(account, "karenina-head")
    assert [s["Resource"] for s in head if any("PutObject" in a or a in ("*", "s3:*") for a in s["Action"])] == [
        "arn:aws:s3:::our-results/*"
    ]
    (ends,) = [s for s in head if "ec2:TerminateInstances" in s["Action"]]
    assert ends["Condition"] == {"StringEquals": {"ec2:ResourceTag/ray-cluster-name": read("cluster.yaml")["cluster_name"]}}


def test_the_launcher_creates_the_instances_that_the_file_says(account):
    """Ray's own bootstrap and node provider, on the emulated EC2."""
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    config = bootstrap_aws(prepared(read("cluster.yaml")))
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    for kind, node_type in config["available_node_types"].items():
        tags = {"ray-node-type": "head" if kind == config["head_node_type"] else "worker", "ray-user-node-type": kind}
        provider.create_node(node_type["node_config"], tags, 1)
    ec2 = account.client("ec2")
    instances = [i for r in ec2.describe_instances()["Reservations"] for i in r["Instances"]]
    found = {next(t["Value"] for t in i["Tags"] if t["Key"] == "ray-user-node-type"): i for i in instances}
    assert set(found) == {"head", "gpu_spot", "gpu_on_demand"}
    (group,) = [g for g in ec2.describe_security_groups()["SecurityGroups"] if g["GroupName"] == "karenina"]
    for kind, instance in found.items():
        assert instance["InstanceType"] == ("m7i.xlarge" if kind == "head" else "g6.xlarge")
        assert instance["IamInstanceProfile"]["Arn"].endswith("karenina-head" if kind == "head" else "karenina-worker")
        assert instance.get("InstanceLifecycle") == ("spot" if kind == "gpu_spot" else None)
        assert [g["GroupId"] for g in instance["SecurityGroups"]] == [group["GroupId"]]
        assert instance["KeyName"] == f"ray-autoscaler_{REGION}"
        assert {"Key": "ray-cluster-name", "Value": "karenina"} in instance["Tags"]
        (disk,) = instance["BlockDeviceMappings"]
        volume = ec2.describe_volumes(VolumeIds=[disk["Ebs"]["VolumeId"]])["Volumes"][0]
        assert (volume["Size"], volume["VolumeType"], disk["Ebs"]["DeleteOnTermination"]) == (60 if kind == "head" else 100, "gp3", True)
    from_outside = [(p["FromPort"], p["ToPort"], [r["CidrIp"] for r in p["IpRanges"]]) for p in group["IpPermissions"] if p["IpRanges"]]
    assert from_outside == [(22, 22, ["192.0.2.7/32"])]
    among = [pair["GroupId"] for p in group["IpPermissions"] for pair in p["UserIdGroupPairs"]]
    assert among == [group["GroupId"]]


def test_worker_types_ask_for_the_same_and_spot_comes_first():
    """What falls back must fit what was asked for."""
    types = read("cluster.yaml")["available_node_types"]
    spot, fallback = types["gpu_spot"], types["gpu_on_demand"]
    assert spot["resources"] == fallback["resources"]
    assert spot["priority"] > fallback["priority"]
    spot["node_config"].pop("InstanceMarketOptions")
    assert spot["node_config"] == fallback["node_config"]
