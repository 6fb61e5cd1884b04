# Uses Kinesis as a client from outside of functions: kinesis.py URL ACCESS-KEY SECRET
import boto3, sys
from botocore.exceptions import ClientError
url, key, secret = sys.argv[1:4]
k = boto3.client('kinesis', endpoint_url=url, region_name='eu-west-1', aws_access_key_id=key, aws_secret_access_key=secret)
def fails(code, f, **kw):
    try: f(**kw)
    except ClientError as e:
        assert e.response['Error']['Code'] == code, (code, e.response)
        return
    raise AssertionError('no ' + code)
def read(shard, **kw):
    it, got = k.get_shard_iterator(StreamName='clicks', ShardId=shard, **kw)['ShardIterator'], []
    while it:
        r = k.get_records(ShardIterator=it, Limit=3)
        got += r['Records']
        if not r['Records'] and r['MillisBehindLatest'] == 0: break
        it = r.get('NextShardIterator')
    return got
k.create_stream(StreamName='clicks', ShardCount=2)
k.get_waiter('stream_exists').wait(StreamName='clicks')
fails('ResourceInUseException', k.create_stream, StreamName='clicks', ShardCount=1)
fails('ResourceNotFoundException', k.describe_stream, StreamName='nope')
fails('ResourceNotFoundException', k.put_record, StreamName='nope', Data=b'x', PartitionKey='a')
d = k.describe_stream(StreamName='clicks')['StreamDescription']
assert d['StreamStatus'] == 'ACTIVE' and len(d['Shards']) == 2 and d['RetentionPeriodHours'] == 24 and not d['HasMoreShards'], d
assert d['Shards'][0]['HashKeyRange']['StartingHashKey'] == '0' and d['Shards'][1]['HashKeyRange']['EndingHashKey'] == str(2 ** 128 - 1), d
assert k.describe_stream_summary(StreamARN=d['StreamARN'])['StreamDescriptionSummary']['OpenShardCount'] == 2
assert 'clicks' in k.list_streams()['StreamNames']
assert k.describe_limits()['OpenShardCount'] == 2
one = k.put_record(StreamName='clicks', Data=b'\0\xff', PartitionKey='a')
r = k.put_records(StreamName='clicks', Records=[{'Data': b'%d' % i, 'PartitionKey': 'a'} for i in range(5)] + [{'Data': b'far', 'PartitionKey': 'b', 'ExplicitHashKey': str(2 ** 128 - 1)}])
assert r['FailedRecordCount'] == 0 and len({x['ShardId'] for x in r['Records']}) in (1, 2), r
got = read(one['ShardId'], ShardIteratorType='TRIM_HORIZON')
assert [x['Data'] for x in got if x['PartitionKey'] == 'a'] == [b'\0\xff', b'0', b'1', b'2', b'3', b'4'], got
assert read(one['ShardId'], ShardIteratorType='AFTER_SEQUENCE_NUMBER', StartingSequenceNumber=one['SequenceNumber'])[0]['Data'] == b'0'
assert read(one['ShardId'], ShardIteratorType='AT_TIMESTAMP', Timestamp=0)[0]['SequenceNumber'] == one['SequenceNumber']
assert read(one['ShardId'], ShardIteratorType='LATEST') == []
assert read(r['Records'][5]['ShardId'], ShardIteratorType='TRIM_HORIZON')[-1]['Data'] == b'far'
fails('ValidationException', k.put_record, StreamName='clicks', Data=b'x' * (11 << 20), PartitionKey='a')
fails('InvalidArgumentException', k.get_records, ShardIterator='nonsense')
k.add_tags_to_stream(StreamName='clicks', Tags={'a': 'b', 'c': 'd'}); k.remove_tags_from_stream(StreamName='clicks', TagKeys=['c'])
assert k.list_tags_for_stream(StreamName='clicks')['Tags'] == [{'Key': 'a', 'Value': 'b'}]
k.increase_stream_retention_period(StreamName='clicks', RetentionPeriodHours=48)
fails('InvalidArgumentException', k.increase_stream_retention_period, StreamName='clicks', RetentionPeriodHours=24)
s = d['Shards'][0]; middle = str((int(s['HashKeyRange']['EndingHashKey']) + 1) // 2)
k.split_shard(StreamName='clicks', ShardToSplit=s['ShardId'], NewStartingHashKey=middle)
assert k.describe_stream_summary(StreamName='clicks')['StreamDescriptionSummary']['OpenShardCount'] == 3
latest = k.list_shards(StreamName='clicks', ShardFilter={'Type': 'AT_LATEST'})['Shards']
children = [x for x in latest if x.get('ParentShardId') == s['ShardId']]
assert len(latest) == 3 and len(children) == 2, latest
p = k.list_shards(StreamName='clicks', MaxResults=1)
assert len(p['Shards']) == 1 and len(k.list_shards(NextToken=p['NextToken'])['Shards']) == 3
k.merge_shards(StreamName='clicks', ShardToMerge=children[0]['ShardId'], AdjacentShardToMerge=children[1]['ShardId'])
assert k.describe_stream_summary(StreamName='clicks')['StreamDescriptionSummary']['OpenShardCount'] == 2
assert k.update_shard_count(StreamName='clicks', TargetShardCount=1, ScalingType='UNIFORM_SCALING')['CurrentShardCount'] == 2
k.create_stream(StreamName='demand', StreamModeDetails={'StreamMode': 'ON_DEMAND'})
assert k.describe_stream(StreamName='demand')['StreamDescription']['StreamModeDetails'] == {'StreamMode': 'ON_DEMAND'}
k.decrease_stream_retention_period(StreamName='clicks', RetentionPeriodHours=24)
fails('InvalidArgumentException', k.decrease_stream_retention_period, StreamName='clicks', RetentionPeriodHours=48)
limits = k.describe_limits()
assert limits['OpenShardCount'] >= 5 and limits['OnDemandStreamCount'] == 1, limits
k.delete_stream(StreamName='clicks')
fails('ResourceNotFoundException', k.describe_stream, StreamName='clicks')
print('all of Kinesis')
