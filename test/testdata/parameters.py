# Uses Parameter Store and Secrets Manager as a client from outside of functions: parameters.py URL ACCESS-KEY SECRET
import boto3, sys
from botocore.exceptions import ClientError
url, key, secret = sys.argv[1:4]
c = lambda n: boto3.client(n, endpoint_url=url, region_name='eu-west-1', aws_access_key_id=key, aws_secret_access_key=secret)
ssm, sm = c('ssm'), c('secretsmanager')
def fails(code, f, **k):
    try: f(**k)
    except ClientError as e:
        assert e.response['Error']['Code'] == code, (code, e.response)
        return
    raise AssertionError('no ' + code)
assert ssm.put_parameter(Name='/shop/db/host', Value='h1', Type='String')['Version'] == 1
fails('ParameterAlreadyExists', ssm.put_parameter, Name='/shop/db/host', Value='h2', Type='String')
assert ssm.put_parameter(Name='/shop/db/host', Value='h2', Type='String', Overwrite=True)['Version'] == 2
ssm.put_parameter(Name='/shop/db/password', Value='s3cret', Type='SecureString')
ssm.put_parameter(Name='/shop/list', Value='a,b', Type='StringList')
p = ssm.get_parameter(Name='/shop/db/host')['Parameter']
assert p['Value'] == 'h2' and p['Version'] == 2 and p['ARN'].endswith(':parameter/shop/db/host'), p
assert ssm.get_parameter(Name='/shop/db/host:1')['Parameter']['Value'] == 'h1'
assert ssm.get_parameter(Name='/shop/db/password')['Parameter']['Value'] != 's3cret'
assert ssm.get_parameter(Name='/shop/db/password', WithDecryption=True)['Parameter']['Value'] == 's3cret'
r = ssm.get_parameters(Names=['/shop/db/host', '/nope'])
assert len(r['Parameters']) == 1 and r['InvalidParameters'] == ['/nope'], r
assert [p['Name'] for p in ssm.get_parameters_by_path(Path='/shop/db')['Parameters']] == ['/shop/db/host', '/shop/db/password']
assert len(ssm.get_parameters_by_path(Path='/shop', Recursive=True)['Parameters']) == 3
assert [h['Value'] for h in ssm.get_parameter_history(Name='/shop/db/host')['Parameters']] == ['h1', 'h2']
assert len(ssm.describe_parameters()['Parameters']) == 3
fails('ParameterNotFound', ssm.get_parameter, Name='/nope')
ssm.delete_parameter(Name='/shop/list'); assert ssm.delete_parameters(Names=['/shop/db/host', '/nope'])['DeletedParameters'] == ['/shop/db/host']
a = sm.create_secret(Name='db', SecretString='{"u":"a"}', Tags=[{'Key': 'k', 'Value': 'v'}])
fails('ResourceExistsException', sm.create_secret, Name='db', SecretString='x')
g = sm.get_secret_value(SecretId='db')
assert g['SecretString'] == '{"u":"a"}' and g['VersionStages'] == ['AWSCURRENT'] and g['ARN'] == a['ARN'], g
v2 = sm.put_secret_value(SecretId=a['ARN'], SecretString='two')['VersionId']
assert sm.get_secret_value(SecretId='db')['SecretString'] == 'two'
assert sm.get_secret_value(SecretId='db', VersionStage='AWSPREVIOUS')['SecretString'] == '{"u":"a"}'
assert sm.get_secret_value(SecretId='db', VersionId=v2)['VersionStages'] == ['AWSCURRENT']
sm.update_secret(SecretId='db', Description='d', SecretBinary=b'\0\xff')
assert sm.get_secret_value(SecretId='db')['SecretBinary'] == b'\0\xff'
d = sm.describe_secret(SecretId='db'); assert d['Description'] == 'd' and d['Tags'] == [{'Key': 'k', 'Value': 'v'}], d
sm.tag_resource(SecretId='db', Tags=[{'Key': 'x', 'Value': 'y'}]); sm.untag_resource(SecretId='db', TagKeys=['k'])
assert sm.describe_secret(SecretId='db')['Tags'] == [{'Key': 'x', 'Value': 'y'}]
assert [s['Name'] for s in sm.list_secrets()['SecretList']] == ['db']
assert len(sm.get_random_password(PasswordLength=20)['RandomPassword']) == 20
sm.delete_secret(SecretId='db', RecoveryWindowInDays=7)
fails('InvalidRequestException', sm.get_secret_value, SecretId='db')
sm.restore_secret(SecretId='db'); assert sm.get_secret_value(SecretId='db')['SecretBinary'] == b'\0\xff'
sm.delete_secret(SecretId='db', ForceDeleteWithoutRecovery=True)
fails('ResourceNotFoundException', sm.get_secret_value, SecretId='db')
l = c('lambda')
assert l.list_functions()['Functions'] == []
fails('ResourceNotFoundException', l.invoke, FunctionName='nope', Payload=b'{}')
print('all of secrets')
