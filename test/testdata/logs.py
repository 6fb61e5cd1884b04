# Uses CloudWatch Logs as a client from outside of functions: logs.py URL ACCESS-KEY SECRET FUNCTION STREAM
import boto3, sys, time
from botocore.exceptions import ClientError
url, key, secret, function, stream = sys.argv[1:6]
logs = boto3.client('logs', endpoint_url=url, region_name='eu-west-1', aws_access_key_id=key, aws_secret_access_key=secret)
def fails(code, f, **k):
    try: f(**k)
    except ClientError as e:
        assert e.response['Error']['Code'] == code, (code, e.response)
        return str(e)
    raise AssertionError('no ' + code)

# What functions wrote.
group = '/aws/lambda/' + function
groups = {g['logGroupName']: g for p in logs.get_paginator('describe_log_groups').paginate(limit=1) for g in p['logGroups']}
assert {group, '/shop/audit'} <= set(groups), groups.keys()
assert groups[group]['retentionInDays'] == 14 and groups[group]['storedBytes'] > 0 and groups[group]['arn'].endswith(':log-group:%s:*' % group), groups[group]
assert groups['/shop/audit']['retentionInDays'] == 30, groups
assert [g['logGroupName'] for g in logs.describe_log_groups(logGroupNamePrefix='/aws/lambda/')['logGroups']] == [group]
assert [g['logGroupName'] for g in logs.describe_log_groups(logGroupNamePattern='AUDIT')['logGroups']] == ['/shop/audit']
streams = logs.describe_log_streams(logGroupName=group, orderBy='LastEventTime', descending=True)['logStreams']
assert stream in [s['logStreamName'] for s in streams], (stream, streams)
one = dict(logGroupName=group, logStreamName=stream)
whole = logs.get_log_events(**one, startFromHead=True)['events']
text = [e['message'] for e in whole]
assert text[0].startswith('START RequestId: ') and any('said w1' in t for t in text) and text[-1].startswith('REPORT ') and all(t.endswith('\n') for t in text), text
assert whole == sorted(whole, key=lambda e: e['timestamp'])
s = next(s for s in streams if s['logStreamName'] == stream)
assert (s['firstEventTimestamp'], s['lastEventTimestamp']) == (whole[0]['timestamp'], whole[-1]['timestamp']), s
got, token = [], None # forward, in pages, until the token is the same
while True:
    r = logs.get_log_events(**one, startFromHead=True, limit=3, **({'nextToken': token} if token else {}))
    got += r['events']
    if r['nextForwardToken'] == token: break
    token = r['nextForwardToken']
assert got == whole, (got, whole)
got, token = [], None # and backward from the end
while True:
    r = logs.get_log_events(**one, limit=3, **({'nextToken': token} if token else {}))
    got = r['events'] + got
    if r['nextBackwardToken'] == token: break
    token = r['nextBackwardToken']
assert got == whole, (got, whole)
mid = whole[len(whole) // 2]['timestamp']
assert [e for e in whole if e['timestamp'] < mid] == logs.get_log_events(**one, startFromHead=True, endTime=mid)['events']
assert [e for e in whole if e['timestamp'] >= mid] == logs.get_log_events(**one, startFromHead=True, startTime=mid)['events']
def filtered(pattern, **k):
    return [e['message'].strip() for p in logs.get_paginator('filter_log_events').paginate(logGroupName=group, filterPattern=pattern, **k) for e in p['events']]
said = filtered('"said w"')
assert len(said) == 3 and said[0].endswith('said w1'), said
for pattern, want in {
    'said w2': [said[1]], '?w1 ?w3': [t for t in filtered('') if 'w1' in t or 'w3' in t], 'said -w2': [said[0], said[2]], '%said w[13]%': [said[0], said[2]], '?w1 said': said,
    '{ $.level = "error" }': ['{"level":"error","n":3,"tags":["b"]}'], '{ $.n >= 2 && $.level != error }': ['{"level":"info","n":2,"tags":["a","b"]}'],
    '{ ($.n = 1 || $.n = 3) && $.tags[0] = "*" }': ['{"level":"info","n":1,"tags":["a"]}', '{"level":"error","n":3,"tags":["b"]}'],
    '{ $.tags[1] EXISTS }': ['{"level":"info","n":2,"tags":["a","b"]}'], '{ $.tags[*] = b }': ['{"level":"info","n":2,"tags":["a","b"]}', '{"level":"error","n":3,"tags":["b"]}'],
    '{ $.none IS NULL }': [], 'nothing_of_this': [],
}.items():
    assert filtered(pattern) == want, (pattern, filtered(pattern))
    assert filtered(pattern, PaginationConfig={'PageSize': 1}) == want, pattern
assert filtered('', logStreamNames=[stream]) == [t.strip() for t in text] == filtered('', logStreamNamePrefix=stream[:12], interleaved=True)
everything = logs.filter_log_events(logGroupIdentifier=groups[group]['arn'])['events']
assert len({e['eventId'] for e in everything}) == len(everything) and everything == logs.filter_log_events(logGroupName=group)['events']
assert all(e['logStreamName'] == stream for e in everything), everything
for pattern in ['a-b', '"open', '{ $.a = }', '{ a = 1 }', '[a, b]', '{ $.a > x }', '%(%']: fails('InvalidParameterException', logs.filter_log_events, logGroupName=group, filterPattern=pattern)
fails('InvalidParameterException', logs.filter_log_events, logGroupName=group, nextToken='what')
fails('ResourceNotFoundException', logs.get_log_events, logGroupName=group, logStreamName='2020/01/01/[$LATEST]0123')
fails('ResourceNotFoundException', logs.describe_log_streams, logGroupName='/aws/lambda/none')
fails('InvalidParameterException', logs.delete_log_group, logGroupName=group)
fails('ResourceAlreadyExistsException', logs.create_log_group, logGroupName=group)
for f, k in [(logs.start_query, dict(logGroupName=group, startTime=1, endTime=2, queryString='fields @message')), (logs.put_metric_filter, dict(logGroupName=group, filterName='f', filterPattern='', metricTransformations=[dict(metricName='m', metricNamespace='n', metricValue='1')]))]:
    assert 'ebb does not have the operation' in fails('UnknownOperationException', f, **k)

# What the function put by its own SDK into a group that its app declares.
assert [(e['logStreamName'], e['message']) for e in logs.filter_log_events(logGroupName='/shop/audit')['events']] == [('by-v3', 'p1'), ('by-v3', 'p2'), ('by-v3', 'p3')]

# What clients put.
logs.create_log_group(logGroupName='own', tags={'a': 'b'})
fails('ResourceAlreadyExistsException', logs.create_log_group, logGroupName='own')
fails('InvalidParameterException', logs.create_log_group, logGroupName='what?')
for s in ['s1', 's2']: logs.create_log_stream(logGroupName='own', logStreamName=s)
fails('ResourceAlreadyExistsException', logs.create_log_stream, logGroupName='own', logStreamName='s1')
fails('InvalidParameterException', logs.create_log_stream, logGroupName='own', logStreamName='a:b')
fails('ResourceNotFoundException', logs.create_log_stream, logGroupName='none', logStreamName='s')
now = int(time.time() * 1000)
put = lambda s, *e, g='own': logs.put_log_events(logGroupName=g, logStreamName=s, logEvents=[dict(timestamp=t, message=m) for t, m in e])
assert put('s1', (now - 20, 'a'), (now, 'c'), (now, 'd'))['nextSequenceToken']
put('s2', (now - 10, 'b'), (now, 'e ☃'))
fails('ResourceNotFoundException', logs.put_log_events, logGroupName='own', logStreamName='s3', logEvents=[dict(timestamp=now, message='x')])
for e in [[(now, 'x'), (now - 1, 'y')], [(now - 86400001, 'x'), (now, 'y')], [(now, 'x' * 262144)], [(now, 'x' * 200000)] * 6]:
    try: put('s1', *e)
    except ClientError as f: assert f.response['Error']['Code'] == 'InvalidParameterException', f
    else: raise AssertionError(len(e))
day = 86400000
assert put('s1', (now - 15 * day, 'old'), (now - 14 * day - day // 2, 'old too'))['rejectedLogEventsInfo'] == {'tooOldLogEventEndIndex': 2}
assert put('s1', (now + 1, 'f'), (now + day // 8, 'late'))['rejectedLogEventsInfo'] == {'tooNewLogEventStartIndex': 1}
own = logs.filter_log_events(logGroupName='own')['events']
assert [e['message'] for e in own] == ['a', 'b', 'c', 'd', 'e ☃', 'f'], own
assert [e['timestamp'] for e in own][:3] == [now - 20, now - 10, now] and all(e['ingestionTime'] >= now - 60000 for e in own)
assert [e['message'] for e in logs.get_log_events(logGroupName='own', logStreamName='s2')['events']] == ['b', 'e ☃']
logs.put_retention_policy(logGroupName='own', retentionInDays=1)
fails('InvalidParameterException', logs.put_retention_policy, logGroupName='own', retentionInDays=2)
assert logs.describe_log_groups(logGroupNamePrefix='own')['logGroups'][0]['retentionInDays'] == 1
assert put('s1', (now - 2 * day, 'expired'))['rejectedLogEventsInfo'] == {'expiredLogEventEndIndex': 1}
logs.delete_retention_policy(logGroupName='own')
assert 'retentionInDays' not in logs.describe_log_groups(logGroupNamePrefix='own')['logGroups'][0]
logs.delete_log_stream(logGroupName='own', logStreamName='s1')
assert [s['logStreamName'] for s in logs.describe_log_streams(logGroupName='own')['logStreams']] == ['s2']
fails('ResourceNotFoundException', logs.get_log_events, logGroupName='own', logStreamName='s1')
logs.delete_log_group(logGroupName='own')
fails('ResourceNotFoundException', logs.filter_log_events, logGroupName='own')
logs.create_log_group(logGroupName='own')
logs.create_log_stream(logGroupName='own', logStreamName='s2')
assert logs.filter_log_events(logGroupName='own')['events'] == [] # another group of the name has nothing of the first

# Clients add to the group of a function, and both are told together.
logs.create_log_stream(logGroupName=group, logStreamName='extra')
put('extra', (whole[0]['timestamp'] - 1, 'before'), (whole[-1]['timestamp'] + 1, 'after'), g=group)
assert [e['message'] for e in logs.filter_log_events(logGroupName=group)['events']] == ['before'] + text + ['after']
print('all of CloudWatch Logs')
