# Calls and describes functions as a client from outside: lambda.py URL ACCESS-KEY SECRET
import base64, boto3, json, sys, warnings
from botocore.exceptions import ClientError
warnings.simplefilter('ignore')
url, key, secret = sys.argv[1:4]
l = boto3.client('lambda', endpoint_url=url, region_name='eu-west-1', aws_access_key_id=key, aws_secret_access_key=secret)
def fails(code, f, **k):
    try: f(**k)
    except ClientError as e:
        assert e.response['Error']['Code'] == code, (code, e.response)
        return e.response
    raise AssertionError('no ' + code)
echo = 'called-dev-echo'
names = [f['FunctionName'] for p in l.get_paginator('list_functions').paginate(PaginationConfig={'PageSize': 1}) for f in p['Functions']]
assert names == ['called-dev-echo', 'called-dev-flow'], names
r = l.invoke(FunctionName=echo, Payload=b'{"a": [1, "\xe2\x98\x83"]}', LogType='Tail')
assert r['StatusCode'] == 200 and r['ExecutedVersion'] == '$LATEST' and json.load(r['Payload']) == {'a': [1, '☃']}, r

assert 'REPORT RequestId: ' in base64.b64decode(r['LogResult']).decode() and 'echoed' in base64.b64decode(r['LogResult']).decode()
r = l.invoke(FunctionName=echo, Payload=b'{"fail": "no"}')
assert r['StatusCode'] == 200 and r['FunctionError'] == 'Unhandled' and json.load(r['Payload'])['errorMessage'] == 'no', r
assert l.invoke(FunctionName=echo, InvocationType='DryRun')['StatusCode'] == 204
assert l.invoke(FunctionName=echo, InvocationType='Event', Payload=b'{}')['StatusCode'] == 202
assert l.invoke_async(FunctionName=echo, InvokeArgs=b'{}')['Status'] == 202
fails('ResourceNotFoundException', l.invoke, FunctionName='none')
fails('InvalidRequestContentException', l.invoke, FunctionName=echo, Payload=b'{')
arn = l.get_function(FunctionName=echo)['Configuration']['FunctionArn']
for name in ['echo', arn, arn.replace('eu-west-1', 'us-east-2'), '000000000000:function:' + echo, echo + ':live']:
    assert l.invoke(FunctionName=name, Payload=b'1')['StatusCode'] == 200, name
events = list(l.invoke_with_response_stream(FunctionName='called-dev-flow', Payload=b'{}')['EventStream'])
assert b''.join(e['PayloadChunk']['Payload'] for e in events if 'PayloadChunk' in e) == b'one two' and 'InvokeComplete' in events[-1] and len(events) > 2, events
c = l.get_function_configuration(FunctionName=echo)
assert (c['Runtime'], c['Handler'], c['MemorySize'], c['Timeout'], c['Environment']['Variables']['K'], c['State']) == ('nodejs20.x', 'echo.handler', 256, 20, 'v', 'Active'), c
assert c['LoggingConfig']['LogGroup'] == '/aws/lambda/' + echo and l.get_function(FunctionName=echo)['Tags'] == {'team': 'a'}
assert l.list_tags(Resource=arn)['Tags'] == {'team': 'a'}
assert l.get_function_concurrency(FunctionName=echo)['ReservedConcurrentExecutions'] == 3
assert l.get_function_event_invoke_config(FunctionName=echo)['MaximumRetryAttempts'] == 1
fails('ResourceNotFoundException', l.get_function_event_invoke_config, FunctionName='called-dev-flow')
u = l.get_function_url_config(FunctionName='called-dev-flow')
assert u['InvokeMode'] == 'RESPONSE_STREAM' and u['AuthType'] == 'NONE' and u['FunctionUrl'].startswith('http'), u
assert [a['Name'] for a in l.list_aliases(FunctionName=echo)['Aliases']] == ['live'] and l.get_alias(FunctionName=echo, Name='live')['AliasArn'] == arn + ':live'
fails('ResourceNotFoundException', l.get_alias, FunctionName=echo, Name='none')
assert [v['Version'] for v in l.list_versions_by_function(FunctionName=echo)['Versions']][0] == '$LATEST'
m = l.list_event_source_mappings(FunctionName=echo)['EventSourceMappings']
assert len(m) == 1 and m[0]['EventSourceArn'].endswith(':jobs') and m[0]['BatchSize'] == 2 and l.get_event_source_mapping(UUID=m[0]['UUID'])['FunctionArn'] == arn, m
fails('ResourceNotFoundException', l.get_event_source_mapping, UUID='5b1ee0f7-5ca8-4d2b-8a0c-0d1bf6a0ff10')
fails('ResourceNotFoundException', l.get_policy, FunctionName=echo)
r = fails('UnknownOperationException', l.delete_function, FunctionName=echo)
assert 'ebb does not have the operation DeleteFunction of Lambda' in r['Error']['Message'], r
print('all of Lambda')
